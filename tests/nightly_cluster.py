"""A batch on a cluster of four nodes (real raylets of this machine) with declared GPUs, of which two machines and the driver die, and another whose head dies: what became of every task, and how long it took to recover, as a dated JSON file. `python tests/nightly_cluster.py --out papers/results --tasks 24`"""
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from record import keep, options
from test_ray import family, kill, notebook, raylet


class Driver:
    "`vdb batch` in a process of its own."
    def __init__(self, *argv):
        self.process = subprocess.Popen([Path(sys.executable).parent/'vdb', 'batch', *map(str, argv), '--quiet', '--json', '--engine', 'ray'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self) -> dict: return json.loads(self.process.communicate()[0])


def wait_until(what: str, true, within_s: float = 120) -> float:
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until: raise SystemExit(f'{what}: not in {within_s} s')
        time.sleep(.05)
    return time.time()


def cluster(nodes: int):
    "A head without processors, and nodes with two declared GPUs each."
    from ray.cluster_utils import Cluster
    made = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0))
    for _ in range(nodes): made.add_node(num_cpus=2, num_gpus=2, memory=4e9, object_store_memory=80_000_000, wait=False)
    made.wait_for_nodes()
    return made


def command(process: psutil.Process) -> str:
    try: return ' '.join(process.cmdline())
    except psutil.Error: return ''


def head_dies() -> dict:
    "The head's processes are killed and nobody begins them again: a new cluster goes on with the batch."
    with tempfile.TemporaryDirectory() as aside:
        home, log = Path(aside), Path(aside)/'log'
        log.mkdir()
        first, folder = cluster(2), home/'night'
        (home/'grid.yaml').write_text(json.dumps(dict(parameters=dict(name=[*'abcd'], how='hangs', log=str(log)))))
        driver = Driver(notebook(home/'wait.ipynb'), '--grid', home/'grid.yaml', '--out', folder, '--address', first.address)
        wait_until('four are computing', lambda: len([*log.glob('begun.*')]) == 4)
        for processes in first.head_node.all_processes.values():
            for p in processes: p.process.kill()
        began = time.monotonic()
        said = driver.process.communicate(timeout=300)[1]
        ended = time.monotonic() - began
        left = sum('vdb.cluster.attempt' in line and aside in line for line in map(command, psutil.process_iter()))  # A worker outlives its raylet, until its task is done
        first.shutdown()
        (log/'go').touch()  # What is gone on with need not hang again
        second = cluster(2)
        told = Driver('resume', folder, '--address', second.address).end()
        second.shutdown()
    return dict(driver_ended_s=ended, driver_status=driver.process.returncode, driver_said=said[-300:], attempts_that_run_on=left, done=told['done'], attempts=[x['attempts'] for x in told['tasks']])


def main() -> int:
    ask = options(__doc__, tasks=24, seconds=5.)
    with tempfile.TemporaryDirectory() as aside:
        home, log = Path(aside), Path(aside)/'log'
        log.mkdir()
        began = time.monotonic()
        made = cluster(4)
        up, folder = time.monotonic() - began, home/'night'
        def events(): return [json.loads(p.read_text()) for p in (folder/'ledger').glob('*.json')]
        def count(kind): return sum(e['event'] == kind for e in events())
        def computing(node, since):  # Until a kernel on that node has begun to compute
            def kernels(): return {int(p.name.rpartition('.')[2]) for p in log.glob('begun.*') if p.stat().st_mtime > since} - {int(p.name.rpartition('.')[2]) for p in log.glob('ended.*')}
            wait_until('an attempt computes there', lambda: kernels() & {p.pid for p in family(raylet(node))})
        (home/'grid.yaml').write_text(json.dumps(dict(parameters=dict(name=[f'w{i}' for i in range(ask.tasks)], seconds=ask.seconds, log=str(log)))))
        began = time.time()
        first = Driver(notebook(home/'wait.ipynb'), '--grid', home/'grid.yaml', '--out', folder, '--address', made.address)
        wait_until('some are published', lambda: count('published') >= ask.tasks//6)
        nodes = [*made.worker_nodes]
        computing(nodes[0], 0.)
        kill(family(raylet(nodes[0])))
        machines = [time.time()]
        wait_until('a machine is known to be lost', lambda: any(e.get('outcome') in ('node_lost', 'lost') for e in events()))
        known = [time.time() - machines[0]]
        wait_until('a third is published', lambda: count('published') >= ask.tasks//3)
        first.kill()
        driver = time.time()
        second = Driver('resume', folder, '--address', made.address)
        again = wait_until('the next driver begins', lambda: any(e['event'] == 'began' and e['at'] > driver for e in events())) - driver
        wait_until('half is published', lambda: count('published') >= ask.tasks//2)
        computing(nodes[1], driver)
        lost = sum(e.get('outcome') in ('node_lost', 'lost') for e in events())
        kill(family(raylet(nodes[1])))
        machines.append(time.time())
        wait_until('the second machine is known to be lost', lambda: sum(e.get('outcome') in ('node_lost', 'lost') for e in events()) > lost)
        known.append(time.time() - machines[1])
        told = second.end()
        published = Counter(e['task'] for e in events() if e['event'] == 'published')
        ended = Counter(e['outcome'] for e in events() if e['event'] == 'ended')
        passed = set(published.values()) == {1} and len(published) == ask.tasks == told['done']
        found = dict(tasks=ask.tasks, nodes=4, gpus_declared=8, seconds_of_a_task=ask.seconds, cluster_up_s=up, done=told['done'], published=len(published), published_twice=sum(n > 1 for n in published.values()), attempts=count('began'), ended=dict(ended), seconds=max(e['at'] for e in events()) - began, machine_known_to_be_lost_s=known, first_attempt_after_the_drivers_death_s=again, passed=passed)
        made.shutdown()
    print(found, flush=True)
    head = head_dies()
    print(head, flush=True)
    passed = passed and head['done'] == 4
    keep('cluster', ask.out, os.cpu_count(), load=os.getloadavg(), **found | dict(passed=passed), head=head)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
