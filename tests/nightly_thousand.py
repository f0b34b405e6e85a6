"""A batch of a thousand small notebooks on a cluster of four nodes (real raylets of this machine) of which every twenty seconds a process, a machine or the driver is killed: what became of every task, and how long each fault took to recover from, as a dated JSON file. Killed itself, it goes on. `python tests/nightly_thousand.py --out papers/results --tasks 1000 --hours 2 --home FOLDER`"""
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path

import nbformat
import numpy as np
import psutil
from nbformat.v4 import new_code_cell, new_notebook
from nightly_cluster import Driver, cluster, command
from record import keep, options
from scipy.stats import binomtest
from test_batch import events
from test_ray import family, kill, raylet

from vdb.cluster.attempt import MARK
from vdb.cluster.batch import Batch

kinds = ('kernel', 'watcher', 'raylet', 'machine', 'driver')
OURS = 'VDB_THOUSAND'  # An environment variable of all that is started for a home
code = """
import os, time
os.makedirs(out, exist_ok=True)
with open(f'{out}/seen', 'a') as file: file.write('x')
time.sleep(seconds)
if how == 'raises': raise ValueError('on purpose')
"""


def notebook(path: Path) -> Path:
    cells = [new_code_cell("name: str = 'a'\nhow = 'works'\nseconds: float = 0\nout = 'out'", metadata=dict(tags=['parameters'])), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), path)
    return path


class Heard(Driver):
    "A driver that may say as much as it likes, and whose end can be asked for."
    def __init__(self, *argv):
        super().__init__(*argv)
        self.said = []
        self.listener = threading.Thread(target=lambda: self.said.extend(self.process.communicate()), daemon=True)
        self.listener.start()

    @property
    def ended(self) -> bool: return not self.listener.is_alive()

    def kill(self):
        self.process.kill()
        self.listener.join()


def variable(p: psutil.Process, name: str) -> str | None:
    try: return p.environ().get(name)
    except (psutil.Error, OSError): return None


def below(pid: int) -> list[psutil.Process]:
    try: return family(pid)
    except psutil.NoSuchProcess: return []


def marks(processes) -> list[str]: return sorted({m for p in processes if (m := variable(p, MARK))})


def end_all(home: Path) -> None:
    "End what carries the variable of this home: what this call has started, or an earlier one that was killed has left."
    def left(): return [p for p in psutil.process_iter() if p.pid != os.getpid() and variable(p, OURS) == str(home)]
    until = time.monotonic() + 30
    while (there := left()) and time.monotonic() < until:
        kill(there)
        psutil.wait_procs(there, timeout=2)


def lines(path: Path) -> list[dict]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError): found.append(json.loads(line))  # The last one may be cut short
    return found


def tell(path: Path, **what: object) -> None:
    with path.open('a+b') as file:
        cut = file.tell() and path.read_bytes()[-1:] != b'\n'
        file.write(b'\n'*bool(cut) + json.dumps(what).encode() + b'\n')


class Night:
    "A cluster, the driver of the batch on it, and what is done to them."
    def __init__(self, home: Path, every: float, seed: int):
        self.home, self.folder, self.every = home, home/'night', every
        self.rng = random.Random(seed + len(lines(home/'faults.jsonl')))
        self.turn = self.rng.choice(kinds)
        self.made, self.missing, self.driver = cluster(4), [], None

    def drive(self) -> None:
        begin = ['resume', self.folder] if (self.folder/'batch.json').exists() else [self.home/'small.ipynb', '--grid', self.home/'grid.yaml', '--out', self.folder, '--retries', 5]
        self.driver, self.begun = Heard(*begin, '--no-site', '--address', self.made.address), time.monotonic()

    def on_nodes(self) -> list[psutil.Process]: return [p for n in self.made.worker_nodes for p in below(raylet(n))]

    def target(self, kind: str) -> tuple[list[psutil.Process], list[str]]:
        "What is to be killed, none where there is nothing of this kind, and the marks of the attempts that this interrupts."
        if kind == 'driver': return ([] if self.driver.ended else [self.driver.process]), marks(self.on_nodes())
        if kind in ('raylet', 'machine'):
            there = [*self.made.worker_nodes]
            if not there: return [], []
            all_of_it = below(raylet(self.rng.choice(there)))
            return all_of_it[:1] if kind == 'raylet' else all_of_it, marks(all_of_it)
        is_one = dict(kernel=lambda p: 'ipykernel' in command(p), watcher=lambda p: command(p).startswith('ray::attempts/'))[kind]
        one = self.rng.sample(found, 1) if (found := [p for p in self.on_nodes() if is_one(p)]) else []
        return one, marks(q for p in one for q in below(p.pid))

    def strike(self) -> bool:
        "One fault, as soon as there is something of the kind whose turn it is."
        processes, interrupted = self.target(self.turn)
        if not processes: return False
        at = time.time()
        if self.turn == 'driver':
            self.driver.kill()
            self.drive()
        else: kill(processes)
        tell(self.home/'faults.jsonl', kind=self.turn, at=at, processes=len(processes), marks=interrupted)
        self.turn = self.rng.choice(kinds)
        return True

    def mend(self) -> None:
        "A node that is gone is there again some seconds later, under another name; a driver that has ended is begun again."
        for node in [n for n in self.made.worker_nodes if n.all_processes['raylet'][0].process.poll() is not None]:
            tell(self.home/'nodes.jsonl', what='gone', at=time.time())
            self.made.remove_node(node, allow_graceful=False)
            self.missing.append(time.monotonic() + self.rng.uniform(2, 6))
        for due in [t for t in self.missing if t < time.monotonic()]:
            self.missing.remove(due)
            try: self.made.add_node(num_cpus=2, num_gpus=2, memory=4e9, object_store_memory=80_000_000, wait=False)
            except Exception as error:  # Ray gives a raylet's agent 15 s to begin, which a busy machine may not have, and raises nothing more precise
                tell(self.home/'nodes.jsonl', what='not begun', at=time.time(), said=str(error)[-200:])
                self.missing.append(time.monotonic() + 5)
        if self.driver.ended and time.monotonic() - self.begun > 5:
            tell(self.home/'drivers.jsonl', at=time.time(), status=self.driver.process.returncode, said=self.driver.said[1][-400:])
            self.drive()

    def until_over(self, hours: float) -> None:
        until, batch = time.monotonic() + 3600*hours, None
        self.drive()
        due = time.monotonic() + self.rng.expovariate(1/self.every)
        while time.monotonic() < until:
            if batch is None and (self.folder/'batch.json').exists(): batch = Batch(str(self.folder))
            if batch and is_over(batch): break
            self.mend()
            if time.monotonic() > due and self.strike(): due = time.monotonic() + self.rng.expovariate(1/self.every)
            time.sleep(.5)
        else: return
        self.driver.listener.join(120)

    def shutdown(self) -> None:
        if self.driver: self.driver.kill()
        self.made.shutdown()


def is_over(batch: Batch) -> bool: return all(x.state in ('done', 'failed') for x in batch.states())


def recovery_s(fault: dict, told: list[dict]) -> float | None:
    "Until all the tasks that it interrupted have begun again; None where there were none. What came to its end all the same was not interrupted."
    times = []
    for began in (e for e in told if e['event'] == 'began' and e['mark'] in fault['marks']):
        ends = [e for e in told if e['event'] in ('published', 'ended') and e['folder'] == began['folder']]
        if any(e['event'] == 'published' or e['outcome'] == 'error' or e['at'] < fault['at'] for e in ends): continue
        again = [e['at'] for e in told if e['event'] == 'began' and e['task'] == began['task'] and e['at'] > fault['at']]
        if again: times.append(min(again) - fault['at'])
    return max(times, default=None)


def by_kind(faults: list[dict], told: list[dict], calls: list[dict]) -> dict:
    "Times to recover. Those in which this script itself was dead measure something else, and are left out."
    def alive(f, s): return s is not None and not any(f['at'] < c['at'] < f['at'] + s for c in calls)
    times = {kind: [s for f in faults if f['kind'] == kind and alive(f, s := recovery_s(f, told))] for kind in kinds}
    def summary(s): return dict(recovered=len(s), median_s=float(np.median(s)), p95_s=float(np.percentile(s, 95)) if len(s) >= 20 else None, max_s=max(s)) if s else dict(recovered=0)
    return {kind: dict(faults=sum(f['kind'] == kind for f in faults), **summary(s)) for kind, s in times.items()}


def verdict(home: Path) -> dict:
    "What became of every task, as the ledger has it."
    batch = Batch(str(home/'night'))
    told, states = events(home/'night'), batch.states()
    published = Counter(e['task'] for e in told if e['event'] == 'published')
    meant = {x.task.id for x in states if x.task.parameters['how'] == 'raises'}
    failed = {x.task.id: x for x in states if x.state == 'failed' and x.reason}
    outcome = {e['folder']: e['outcome'] for e in told if e['event'] == 'ended'}
    errors = {task: min((e['at'] for e in told if e['event'] == 'ended' and e['task'] == task and e['outcome'] == 'error'), default=None) for task in meant}
    as_meant = sum(task in failed and 'on purpose' in failed[task].reason for task in meant)
    again = sum(any(e['event'] == 'began' and e['task'] == task and e['at'] > at for e in told) for task, at in errors.items() if at)  # An attempt that was killed before it raised was none of theirs
    empty = sum(not (home/'night'/e['folder']/'out'/'seen').exists() for e in told if e['event'] == 'published')
    unreported, done = len({x.task.id for x in states} - {*published} - {*failed}), len({*published} - meant)
    at = [e['at'] for e in told] or [0.]
    interval = binomtest(done, len(states) - len(meant)).proportion_ci(.95, 'exact')
    found = dict(tasks=len(states), meant_to_fail=len(meant), complete=is_over(batch), published=len(published), published_twice=sum(n > 1 for n in published.values()), published_without_its_file=empty,
                 failed_as_meant=as_meant, tried_again_after_an_error=again, failed=Counter(outcome[x.folder] for x in failed.values()), unreported=unreported,
                 attempts=sum(e['event'] == 'began' for e in told), ended=Counter(e['outcome'] for e in told if e['event'] == 'ended'),
                 completion=done/(len(states) - len(meant)), completion_95=[float(interval.low), float(interval.high)], seconds=max(at) - min(at))
    passed = found['complete'] and not unreported and not {*published} & {*failed} and not found['published_twice'] and not empty and as_meant == len(meant) and not again
    faults, calls, nodes = lines(home/'faults.jsonl'), lines(home/'calls.jsonl'), Counter(n['what'] for n in lines(home/'nodes.jsonl'))
    struck = sum(f['kind'] in ('raylet', 'machine') for f in faults)
    return found | dict(faults=by_kind(faults, told, calls), nodes_that_ended_by_themselves=max(0, nodes['gone'] - struck), nodes_that_did_not_begin=nodes['not begun'], drivers_that_ended_early=lines(home/'drivers.jsonl'), calls=len(calls), passed=passed)


def main() -> int:
    ask = options(__doc__, tasks=1000, hours=2., home='', every=20., seed=7)
    with nullcontext(ask.home) if ask.home else tempfile.TemporaryDirectory() as aside:
        home = Path(aside).resolve()
        home.mkdir(parents=True, exist_ok=True)
        end_all(home)
        os.environ |= {OURS: str(home), 'SPT_NOENV': '1'}  # A process that names itself would write over its environment
        if not (home/'night'/'batch.json').exists():
            rows = [dict(name=f'w{i}', how='raises' if i % 33 == 16 else 'works', seconds=.2) for i in range(ask.tasks)]
            (home/'grid.yaml').write_text(json.dumps(dict(include=rows)))
            notebook(home/'small.ipynb')
        if not (home/'night'/'batch.json').exists() or not is_over(Batch(str(home/'night'))):
            tell(home/'calls.jsonl', at=time.time())
            night = None
            try:
                night = Night(home, ask.every, ask.seed)
                night.until_over(ask.hours)
            finally:
                if night: night.shutdown()
                end_all(home)
        found = verdict(home)
    print(json.dumps(found, indent=1), flush=True)
    keep('thousand', ask.out, os.cpu_count(), load=os.getloadavg(), nodes=4, gpus_declared=8, fault_every_s=ask.every, **found)
    return 0 if found['passed'] else 1


if __name__ == '__main__': sys.exit(main())
