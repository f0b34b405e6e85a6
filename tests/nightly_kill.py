"""Two hundred SIGKILLs at random moments, and each moment between two file operations, as a dated JSON file. `python tests/nightly_kill.py --out papers/results`"""
import argparse
import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

here = Path(__file__).resolve().parent


def main() -> int:
    from vdb.timing import environment
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument('--out', default='papers/results', help='folder of the JSON file')
    ask.add_argument('--kills', type=int, default=200)
    ask = ask.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        told = Path(aside)/'told.jsonl'
        tests = [sys.executable, '-m', 'pytest', '-c', here/'pytest.ini', here/'test_kill.py', '--timeout', '14400', '-q']
        done = subprocess.run(tests, env={**os.environ, 'VDB_KILLS': str(ask.kills), 'VDB_KILLS_TOLD': str(told)})
        parts = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    code = hashlib.sha256(b''.join((here.parent/'vdb'/f).read_bytes() for f in ('files.py', 'claims.py', 'results.py', 'cells.py', 'bench.py'))).hexdigest()[:16]
    here_and_now = environment('cpu', 1)
    report = dict(date=datetime.date.today().isoformat(), code=code, passed=done.returncode == 0, **{k: here_and_now[k] for k in ('python', 'processor', 'cores', 'versions')})
    path = Path(ask.out)/f'{report["date"]}-kills.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, **{k: v for p in parts for k, v in p.items()}}, indent=1) + '\n')
    print(path)
    return done.returncode


if __name__ == '__main__': sys.exit(main())
