"""What becomes of a card's memory when what held it is killed, as a dated JSON file: attempts that hold most of a GPU and are inside one long CUDA call, ended by a deadline, by SIGKILL of the attempt, of Ray's worker, and of the driver, on both engines. `python tests/gpu_batch.py --out papers/results`; without a GPU it shows only that nothing runs on"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from record import keep, options

# Most of the card: where an attempt before it has left something, this one does not fit.
code = """
import os, time, torch
from torch.utils.data import DataLoader
device = 'cuda' if torch.cuda.is_available() else 'cpu'
loader = iter(DataLoader(range(10**9), num_workers=2, persistent_workers=True))  # Processes of the kernel's own
next(loader)
def tell(word): open(f'{log}/{word}.{name}.{os.getpid()}', 'w').write(json.dumps([time.time(), os.environ.get('CUDA_VISIBLE_DEVICES'), torch.cuda.device_count()]))
if device == 'cuda': held = torch.empty(int(.6*torch.cuda.get_device_properties(0).total_memory), dtype=torch.uint8, device=device)
a = torch.randn(8192 if device == 'cuda' else 512, 8192 if device == 'cuda' else 512, device=device)
for _ in range(20): a = (a@a).softmax(-1)
float(a.sum())
tell('begun')
until = f'{log}/go'
if how == 'blocked' and not os.path.exists(until):
    if device == 'cuda':
        cycles = torch.cuda._sleep
        for _ in range(1000): cycles(2_000_000_000)  # About a second each: the call below returns in a quarter of an hour
        torch.cuda.synchronize()
    else: time.sleep(1000)
tell('ended')
"""


def used_gb() -> float:
    "Memory in use on the first card, as its driver tells; NaN without one."
    try: told = subprocess.run(['nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits', '-i', '0'], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError): return float('nan')
    return float(told.split()[0])*2**20/1e9


def notebook(folder: Path) -> Path:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    cells = [new_code_cell("import json\nname = 'a'\nhow = 'works'\nlog = ''", metadata=dict(tags=['parameters'])), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), folder/'hold.ipynb')
    return folder/'hold.ipynb'


class Night:
    "One batch, driven by a process of its own."
    def __init__(self, home: Path, engine: str, address: str | None, names: dict, deadline: float = 0):
        shutil.rmtree(home, ignore_errors=True)
        (home/'log').mkdir(parents=True)
        self.log, self.folder, self.engine = home/'log', home/'night', [*(['--engine', engine] if engine != 'local' else []), *(['--address', address] if address else [])]
        rows = [dict(name=name, how=how, log=str(self.log)) for name, how in names.items()]
        rule = dict(rules=[dict(resources=dict(cpus=4, gpus=1))]) if used_gb() == used_gb() else {}
        (home/'grid.yaml').write_text(json.dumps(dict(include=rows, **rule)))
        self.process = self.drive(notebook(home), '--grid', home/'grid.yaml', '--out', self.folder, '--retries', 3, '--processes', 1, *(['--deadline', deadline] if deadline else []))

    def drive(self, *argv) -> subprocess.Popen:
        start = 'import sys; from vdb.cli import main; sys.exit(main())'
        return subprocess.Popen([sys.executable, '-c', start, 'batch', *map(str, argv), '--quiet', '--no-site', '--json', *self.engine], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(self, word: str, count: int = 1) -> list[Path]:
        until = time.monotonic() + 120
        while len(found := [*self.log.glob(f'{word}.*')]) < count:
            if self.process.poll() is not None or time.monotonic() > until: raise SystemExit(f'{word} has not come: {self.process.communicate() if self.process.poll() is not None else ""} {[(p.name, p.read_text()[-2000:]) for p in self.folder.glob("attempts/*/*/log.txt")]}')
            time.sleep(.02)
        return found

    def marked(self) -> list[psutil.Process]:
        marks = {json.loads(p.read_text()).get('mark') for p in (self.folder/'ledger').glob('began-*.json')}
        def mark(p):
            with suppress(psutil.Error, OSError): return p.environ().get('VDB_ATTEMPT')
        return [p for p in psutil.process_iter() if mark(p) in marks]

    def end(self) -> dict:
        out, err = self.process.communicate(timeout=200)
        if not out: raise SystemExit(err)
        events = [json.loads(p.read_text()) for p in (self.folder/'ledger').glob('*.json')]
        return dict(json.loads(out), outcomes=sorted(e['outcome'] for e in events if e['event'] == 'ended'))


def freed(night: Night, before: float) -> dict:
    "Seconds until nothing of the attempt runs, and until the card has its memory back."
    began, gone = time.monotonic(), None
    while True:
        took, left, used = time.monotonic() - began, night.marked(), used_gb()
        if gone is None and not left: gone = took
        if gone is not None and (not used == used or used < before + 1): return dict(processes_gone_s=round(gone, 2), memory_free_s=round(took, 2) if used == used else None)
        if took > 60: return dict(processes_gone_s=gone, memory_free_s=None, left=[p.name() for p in left], used_gb=used)
        time.sleep(.02)


def killed(home: Path, engine: str, address: str | None, victim: str) -> dict:
    "An attempt inside a CUDA call, of which something is killed; then another one does it."
    before = used_gb()
    night = Night(home, engine, address, dict(a='blocked'))
    (begun,) = night.wait_for('begun')
    held = used_gb() - before
    time.sleep(2)
    (night.log/'go').touch()  # The next attempt does not block
    kernel = psutil.Process(int(begun.name.rpartition('.')[2]))
    attempt = kernel.parent()
    target = dict(kernel=kernel, attempt=attempt, worker=attempt.parent(), driver=psutil.Process(night.process.pid))[victim]
    children = len(kernel.children(recursive=True))
    if victim == 'driver':
        target.kill()
        found = freed(night, before)
        night.process.communicate()
        night.process = night.drive('resume', night.folder)
    else:
        stamp = time.time()
        target.kill()
        night.wait_for('begun', 2)
        again = min(json.loads(p.read_text())[0] for p in night.log.glob('begun.*') if p.name != begun.name)
        found = dict(next_attempt_computes_s=round(again - stamp, 2))
    told = night.end()
    return dict(engine=engine, killed=victim, held_gb=held, children_of_the_kernel=children, done=told['done'], outcomes=told['outcomes'], **found)


def late(home: Path, engine: str, address: str | None) -> dict:
    "An attempt inside a CUDA call that has had its time."
    before = used_gb()
    night = Night(home, engine, address, dict(a='blocked'), deadline=25)
    night.wait_for('begun')
    held = used_gb() - before
    told = night.end()
    return dict(engine=engine, killed='deadline', held_gb=held, done=told['done'], outcomes=told['outcomes'], reason=told['tasks'][0]['reason'], seconds=told['tasks'][0]['seconds'], **freed(night, before))


def in_turn(home: Path, engine: str, address: str | None, n: int) -> dict:
    "Attempts that fit on the card one at a time only."
    began = time.monotonic()
    night = Night(home, engine, address, {f'w{i}': 'works' for i in range(n)})
    told = night.end()
    seen = [json.loads(p.read_text())[1:] for p in night.log.glob('begun.*')]
    return dict(engine=engine, tasks=n, done=told['done'], seconds=round(time.monotonic() - began, 2), visible=sorted({json.dumps(s) for s in seen}), peak_gb=max(x['peak_bytes'] for x in told['tasks'])/1e9)


def main() -> int:
    ask = options(__doc__, tasks=3)
    has_gpu, rows, turns = used_gb() == used_gb(), [], []
    with tempfile.TemporaryDirectory() as aside:
        home = Path(aside)/'b'
        def measure(engine, address=None):
            turns.append(in_turn(home, engine, address, ask.tasks))
            print(turns[-1], flush=True)
            for victim in ('kernel', 'attempt', *(['worker'] if engine == 'ray' else []), 'driver'):
                rows.append(killed(home, engine, address, victim))
                print(rows[-1], flush=True)
            rows.append(late(home, engine, address))
            print(rows[-1], flush=True)
        measure('local')
        try: from ray.cluster_utils import Cluster
        except ImportError: print('without Ray')
        else:
            cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=8, **(dict(num_gpus=1) if has_gpu else {})))
            measure('ray', cluster.address)
            cluster.shutdown()
    passed = all(r['done'] == (r['killed'] != 'deadline') and not r.get('left') for r in rows) and all(r['done'] == r['tasks'] for r in turns)
    device = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'], capture_output=True, text=True).stdout.strip() if has_gpu else 'cpu'
    keep('gpu-batch', ask.out, os.cpu_count(), device=device, passed=passed, in_turn=turns, killed=rows)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
