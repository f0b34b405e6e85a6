"""A batch on this machine against a shell loop of papermill over the same notebooks, one at a time and two: wall seconds, as a dated JSON file. `python tests/nightly_batch.py --out papers/results --tasks 8`"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import keep, options

root = Path(__file__).resolve().parents[1]
report = root/'papers'/'model_report.ipynb'


def light(folder: Path) -> Path:
    "A notebook that does next to nothing: what is measured is what surrounds it."
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    cells = [new_code_cell('seeds = 1\nout = None', metadata=dict(tags=['parameters'])), *[new_code_cell('seeds') for _ in range(5)]]
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), folder/'light.ipynb')
    return folder/'light.ipynb'


def timed(command, **how) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    return time.perf_counter() - began


def batch(notebook: Path, seeds: list[list[int]], home: Path) -> float:
    (home/'grid.yaml').write_text(json.dumps(dict(parameters=dict(seeds=seeds) if notebook == report else dict(seeds=[s[0] for s in seeds]))))
    return timed([Path(sys.executable).parent/'vdb', 'batch', notebook, '--grid', home/'grid.yaml', '--out', home/'batch', '--quiet', '--no-site'])


def loop(notebook: Path, seeds: list[list[int]], home: Path, at_once: int, threads: int) -> float:
    "`xargs` runs a line at a time; with as many threads for each as it has cores."
    def line(i, s):
        (home/f'{i}.yaml').write_text(json.dumps(dict(seeds=s if notebook == report else s[0], out=str(home/f'out{i}'))))
        return f'papermill --no-progress-bar -f {home}/{i}.yaml {notebook} {home}/{i}.ipynb'
    lines = '\n'.join(line(i, s) for i, s in enumerate(seeds))
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'OMP_NUM_THREADS': str(threads), 'VDB_THREADS': str(threads)}
    return timed(['xargs', '-P', str(at_once), '-I{}', 'sh', '-c', '{}'], input=lines, text=True, env=env)


def main() -> int:
    ask = options(__doc__, tasks=8, rounds=3)
    cores = os.cpu_count()
    ways = dict(batch=batch, loop=lambda *a: loop(*a, 1, cores), loop_two=lambda *a: loop(*a, 2, max(1, cores//2)))
    found = {}
    with tempfile.TemporaryDirectory() as aside:
        for name, notebook in dict(light=light(Path(aside)), report=report).items():
            seconds = {way: [] for way in ways}
            for n in range(ask.rounds):
                for way in [*ways][n % 3:] + [*ways][:n % 3]:
                    home = Path(aside)/'work'
                    home.mkdir()
                    seconds[way].append(ways[way](notebook, [[k, k + 100] for k in range(ask.tasks)], home))
                    shutil.rmtree(home)
            found[name] = dict(seconds=seconds, median={way: statistics.median(s) for way, s in seconds.items()})
    passed = all(f['median']['batch'] <= f['median']['loop'] for f in found.values())
    keep('batch', ask.out, cores, tasks=ask.tasks, passed=passed, load=os.getloadavg(), **found)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
