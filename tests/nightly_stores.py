"""A batch in each of three object stores (real servers on loopback) while requests fail at random, the store is out, and the driver is killed: what became of every task, as a dated JSON file. `python tests/nightly_stores.py --out papers/results --tasks 8`"""
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import fsspec
from record import keep, options
from stores import store
from test_batch import notebook

faults = ('500', '503', 'cut', 'deaf', 'slow')
os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'  # Read when gcsfs is imported


def at_random(rng: random.Random, share: float, made: Counter):
    "Each request has a fault with this probability."
    lock = threading.Lock()
    def fault(method, path):
        with lock:
            found = rng.choice(faults) if rng.random() < share else ''
            if found: made[found] += 1
        return found
    return fault


def driver(*argv, env: dict) -> subprocess.Popen:
    command = [Path(sys.executable).parent/'vdb', 'batch', *map(str, argv), '--quiet', '--json']
    return subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def night(kind: str, tasks: int, share: float, outage: float) -> dict:
    "One batch: its driver is killed when three notebooks have begun, and the store is out when the next three have."
    with tempfile.TemporaryDirectory() as aside, store(kind, Path(aside)) as made:
        home, log, faulty = Path(aside), Path(aside)/'log', Counter()
        log.touch()
        (home/'grid.yaml').write_text(json.dumps(dict(parameters=dict(name=[f't{i}' for i in range(tasks)], seconds=6., log=str(log)))))
        def begun(n):
            while log.read_text().count('begun') < n: time.sleep(.1)
        made.proxy.fault, began, url = at_random(random.Random(7), share, faulty), time.monotonic(), f'{made.url}/night'
        first = driver(notebook(home/'wait.ipynb'), '--grid', home/'grid.yaml', '--out', url, '--retries', 5, env=made.environment)
        begun(3)
        first.kill()
        first.communicate()
        second = driver('resume', url, env=made.environment)
        begun(6)
        made.proxy.down = True
        time.sleep(outage)
        made.proxy.down, up = False, time.time()
        out, said = second.communicate()
        seconds = time.monotonic() - began
        made.proxy.heal()
        os.environ.update(made.environment)
        fs = fsspec.url_to_fs(made.url, use_listings_cache=False, skip_instance_cache=True)[0]
        told = [json.loads(c) for c in fs.cat(fs.glob('lab/night/ledger/*.json')).values()]
        left = [e['mark'] for e in told if 'mark' in e and os.path.exists(f'{tempfile.gettempdir()}/vdb-{e["mark"]}')]
        after = [e['at'] - up for e in told if e['at'] > up]
        published = Counter(e['task'] for e in told if e['event'] == 'published')
        return dict(tasks=tasks, published=len(published), twice=sum(n > 1 for n in published.values()), attempts=sum(e['event'] == 'began' for e in told),
                    ended=Counter(e['outcome'] for e in told if e['event'] == 'ended'), status=second.returncode, said=said[-400:], seconds=seconds, outage_s=outage,
                    first_event_after_outage_s=min(after, default=None), requests=len(made.proxy.seen), faults=faulty, workplaces_left=len(left), done=json.loads(out)['done'])


def main() -> int:
    ask = options(__doc__, tasks=8, share=.03, outage=45., kinds='s3,gs,az')
    found = {kind: night(kind, ask.tasks, ask.share, ask.outage) for kind in ask.kinds.split(',')}
    keep('stores', ask.out, os.cpu_count(), share=ask.share, load=os.getloadavg(), **found)
    return int(any(x['published'] != x['tasks'] or x['workplaces_left'] for x in found.values()))


if __name__ == '__main__': sys.exit(main())
