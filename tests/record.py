"What a nightly script measured, as a dated JSON file with the device, the versions and the hash of the code."
import argparse
import datetime
import hashlib
import json
from pathlib import Path

vdb = Path(__file__).resolve().parents[1]/'vdb'


def options(text: str, **defaults: object) -> argparse.Namespace:
    "`--out`, and an option for each of these."
    ask = argparse.ArgumentParser(description=text)
    ask.add_argument('--out', default='papers/results', help='folder of the JSON file')
    for name, value in defaults.items(): ask.add_argument(f'--{name}', type=type(value), default=value)
    return ask.parse_args()


def keep(kind: str, out: str, threads: int, **found: object) -> Path:
    "Write `<date>-<kind>.json`. The code is all of `vdb.streaming`, its widget, or `vdb.optimize`, and what generates; or `vdb.cluster`, the strategies, the choice by prompt, or what measures a table."
    from vdb.timing import environment
    now = environment('cpu', threads)
    part = 'optimize' if kind.startswith('tuning') else 'streaming'
    files = [*sorted((vdb/part).glob('*.py')), vdb/'models'/'pipelines.py']
    if kind in ('strategies', 'moves'): files = [vdb/'optimize'/f'{name}.py' for name in ('space', 'strategies', 'problems', 'bayesian', 'evolutionary', 'reinforcement')]
    if kind == 'table': files = [vdb/'optimize'/'objectives.py', vdb/'optimize'/'tunable.py', vdb/'models'/'pipelines.py']
    if kind == 'prompts': files = [vdb/'optimize'/'reinforcement.py', vdb/'optimize'/'objectives.py', vdb/'models'/'pipelines.py']
    if kind == 'architecture': files = [vdb/'patches.py', *(vdb/'optimize'/f'{name}.py' for name in ('space', 'strategies', 'bayesian', 'evolutionary', 'architecture'))]
    if kind in ('batch', 'gpu-batch', 'cluster', 'thousand') or kind.startswith('dispatch'): files = sorted((vdb/'cluster').glob('*.py'))
    if kind == 'stores': files = [*sorted((vdb/'cluster').glob('*.py')), vdb/'files.py']
    if kind == 'gpu-patches': files = [vdb/'patches.py', vdb/'models'/'pipelines.py']
    if kind == 'widget': files += sorted(f for f in (vdb/'widgets').rglob('*') if f.suffix in ('.py', '.js', '.css'))
    code = hashlib.sha256(b''.join(f.read_bytes() for f in files)).hexdigest()[:16]
    report = dict(date=datetime.date.today().isoformat(), code=code, **found, **{k: now[k] for k in ('python', 'processor', 'cores', 'threads', 'versions')})
    path = Path(out)/f'{report["date"]}-{kind}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + '\n')
    print(path)
    return path
