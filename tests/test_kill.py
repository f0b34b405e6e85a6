"""A run is killed with SIGKILL, continued by the same command, killed again, until it is complete: nothing is generated twice, nothing is lost, and the
tables and clips are those of a run that nobody disturbed. `VDB_KILLS=200 pytest tests/test_kill.py` is the nightly form."""
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

kills_wanted = int(os.environ.get('VDB_KILLS', 10))
stride = 1 if kills_wanted >= 100 else 3  # Not a divisor of the four moments of a write, so that each of the four is met again and again
prompts = ['a red circle', 'a blue square moves left', 'a "green" circle / 😀', 'slowly right on black']
seeds = 3
pytestmark = pytest.mark.timeout(max(1200, 60*kills_wanted))  # for a machine that is busy with other things

logging_setup = """
import os
from vdb import bench
from vdb.models.pipelines import DiffusersModel
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
plain, unfinished = DiffusersModel.generate, bench.unfinished
def generate(self, prompt, seed, settings):
    os.write(log, f'{{prompt.id}} {{seed}}\\n'.encode())
    return plain(self, prompt, seed, settings)
def begun(folder, protocol):
    found = unfinished(folder, protocol)
    os.write(log, b'begun\\n')
    return found
DiffusersModel.generate, bench.unfinished = generate, begun
"""


def counted_rows(folder: Path) -> list[tuple[str, str]]:
    "(generation id, part) of every row of every part that counts, doubles included."
    from vdb.results import RunFolder
    run = RunFolder(str(folder))
    if not (folder/'protocol.json').exists(): return []
    parts = [(p, h) for m in run.manifests().values() for p, h in m['parts'].items() if p.startswith('generations/')]
    return [(i, p) for p, hash_ in parts for i in run._read_part(p, hash_).to_pandas()['id']]


def contents(folder: Path) -> dict:
    "All that must not depend on how often a run was stopped."
    from vdb.runs import open_run
    run = open_run(str(folder))
    return dict(generations=run.generations, scores=run.scores, samples=run.samples[['prompt', 'seed', 'stage', 'repeat', 'unit', 'device', 'cold']],
                videos={p.name: p.read_bytes() for p in (folder/'videos').glob('*.mp4')}, protocol=(folder/'protocol.json').read_bytes(),
                environment=(folder/'environment.json').read_bytes())


def assert_same(found: dict, expected: dict):
    from pandas.testing import assert_frame_equal
    for name in ('generations', 'scores', 'samples'): assert_frame_equal(found[name], expected[name], check_exact=True, obj=name)
    for name in ('videos', 'protocol', 'environment'): assert found[name] == expected[name], name


def files(folder: Path) -> Counter:
    "How many files of each kind a folder holds."
    return Counter('/'.join((*p.relative_to(folder).parts[:-1], p.suffix)) for p in folder.rglob('*') if p.is_file())


def grow_old(folder: Path):
    for p in folder.rglob('*'):
        if p.is_file(): os.utime(p, (time.time() - 7200,)*2)


@pytest.fixture(scope='module')
def command(pipeline, tmp_path_factory):
    "The arguments of the run, but for its folder."
    suite = tmp_path_factory.mktemp('suite')/'four.txt'
    suite.write_text('\n'.join(prompts))
    return ['run', pipeline('ltx'), '--suite', suite, '--seeds', seeds, '--frames', 9, '--height', 32, '--width', 32, '--steps', 2, '--threads', 1,
            '--no-report', '--quiet', '--out']


@pytest.fixture(scope='module')
def undisturbed(warm, command, tmp_path_factory):
    "The run that nobody kills: its folder and how long its work took."
    folder = tmp_path_factory.mktemp('undisturbed')/'run'
    done = warm(*command, folder)
    assert done.status == 0, done.err
    stamps = [p.stat().st_mtime for p in (folder/'videos').iterdir()]
    return folder, (max(stamps) - min(stamps))*len(stamps)/(len(stamps) - 1)


def test_killed_at_random_moments(warm, command, undisturbed, tmp_path):
    whole, work_s = undisturbed
    expected, kills, rounds, chance = contents(whole), 0, 0, random.Random(2)
    during = Counter()
    while kills < kills_wanted:
        rounds += 1
        folder, log = tmp_path/f'run{rounds}', tmp_path/f'log{rounds}'
        log.touch()
        seen, first_part = set(), {}
        while True:
            started = warm.start(*command, folder, setup=logging_setup.format(log=str(log)))
            before = len(log.read_text().splitlines())
            anywhere = chance.random() < .15  # while it starts; otherwise while it works
            deadline = time.monotonic() + (chance.uniform(0, 3) if anywhere else 300)
            while time.monotonic() < deadline and not started.ended() and (anywhere or len(log.read_text().splitlines()) == before): time.sleep(.005)
            done = started.kill_after(0 if anywhere else chance.uniform(0, work_s/2))
            generated = [x for x in log.read_text().splitlines()[before:] if x != 'begun']
            rows = counted_rows(folder)
            ids, parts = {i for i, _ in rows}, Counter(i for i, _ in rows)
            assert max(parts.values(), default=1) == 1, 'a cell counts twice'
            assert seen <= ids, 'a committed cell was lost'
            for i, part in rows:
                if '/all-' not in part: assert first_part.setdefault(i, part) == part, 'a cell was committed by two parts'
            assert not {by_cell(folder)[i] for i in seen} & set(generated), 'a committed cell was generated again'
            assert max(Counter(generated).values(), default=1) == 1
            seen = ids
            during['starting' if not generated and not rows else 'ended' if done.status == 0 else 'working'] += 1
            if done.status == 0: break
            assert done.status == -signal.SIGKILL, done.err
            kills += 1
            if kills > kills_wanted + 40: pytest.fail('the run does not come to its end')
        assert len(seen) == len(prompts)*seeds
        assert_same(contents(folder), expected)
        left = files(folder)
        assert not files(whole) - left
        grow_old(folder)
        assert warm(*command, folder).status == 0  # opens it, and sweeps
        assert files(folder) == files(whole)
        assert_same(contents(folder), expected)
        shutil.rmtree(folder)
    tell(kills=kills, runs=rounds, processes=dict(during))
    assert during['working'] >= kills_wanted/2, during


def tell(**found):
    "For the log, and for the nightly file."
    print(json.dumps(found))
    if told := os.environ.get('VDB_KILLS_TOLD'):
        with open(told, 'a') as file: file.write(json.dumps(found) + '\n')


def by_cell(folder: Path) -> dict[str, str]:
    "Generation id -> what the log says of it."
    from vdb.results import RunFolder
    return {g.id: f'{g.prompt} {g.seed}' for g in RunFolder(str(folder)).protocol().plan()}


every_moment = '''
import json, os, random, shutil, signal, sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
import numpy as np
import vdb.files as files, vdb.results as results
from fsspec.implementations.local import LocalFileSystem
from vdb.bench import run
from vdb.runs import open_run
from vdb.core import Settings, Video

home = Path({home!r}); chains = {chains}

class Painter:
    name, device, defaults = 'painter', 'cpu', Settings(frames=3, height=16, width=16, fps=8.)
    def fingerprint(self): return dict(name='painter', weights='0')
    def generate(self, prompt, seed, settings):
        os.write(log, f'{{prompt.id}} {{seed}}\\n'.encode())
        if prompt.text == 'broken': raise RuntimeError('a bug')
        return Video(np.random.default_rng([seed, len(prompt.text)]).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8), 8.)

def work(folder): run(Painter(), ['one', 'broken'], 1, out=str(folder), metrics=['temporal_flicker'], threads=1, progress=False)

def die_at(moment):
    "Have this process killed at its nth file operation; a write is four: before it, half-way, before its rename, after it."
    count = [0]
    def reached(half=None):
        count[0] += 1
        if count[0] == moment:
            if half: half()
            os.kill(os.getpid(), signal.SIGKILL)
    plain_replace, plain_link, plain_open, plain_rm = os.replace, os.link, open, LocalFileSystem.rm_file
    class Halved:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *_): self.file.close()
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, content):
            reached(lambda: (self.file.write(content[:len(content)//2]), self.file.flush()))
            self.file.write(content)
    def opened(path, mode='r'):
        reached()
        return Halved(plain_open(path, mode))
    def replace(a, b):
        reached(); plain_replace(a, b); reached()
    def link(a, b):
        reached(); plain_link(a, b); reached()
    def rm(self, path):
        reached(); plain_rm(self, path); reached()
    files.open, os.replace, os.link, LocalFileSystem.rm_file = opened, replace, link, rm
    return count

def process(act):
    "Run it in a process of its own; the exit status."
    pid = os.fork()
    if not pid:
        try: act(); code = 0
        except BaseException:
            import traceback; traceback.print_exc(); code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def tables(folder):
    r = open_run(str(folder))
    return [r.generations.to_json(), r.scores.to_json(double_precision=15), r.samples[['prompt', 'seed', 'stage', 'repeat']].to_json(),
            {{p.name: p.read_bytes() for p in (Path(folder)/'videos').glob('*.mp4')}}]

def lines(): return Path(log_path).read_text().splitlines()

log_path = str(home/'log')
log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def until_complete(name, moments):
    "Kill at each of the moments in turn, then let it finish; False when it ended before the first."
    folder = home/name
    for n, moment in enumerate(moments):
        def act(): die_at(moment); work(folder)
        committed = set()
        if (folder/'protocol.json').exists():
            table = results.RunFolder(str(folder)).table('generations')
            committed = {{f'{{r.prompt}} {{r.seed}}' for r in table.itertuples()}}
        before = len(lines())
        status = process(act)
        assert not committed & set(lines()[before:]), (name, moments, 'generated again')
        if status == 0: break
        assert status == -signal.SIGKILL, (name, moments, status)
        if (folder/'protocol.json').exists():
            table = results.RunFolder(str(folder)).table('generations')
            assert committed <= {{f'{{r.prompt}} {{r.seed}}' for r in table.itertuples()}}, (name, moments, 'lost')
            assert len(table) == len(results.RunFolder(str(folder)).table('scores')), (name, moments, 'half a cell')
    killed = n > 0 or status != 0
    assert process(lambda: work(folder)) == 0, (name, moments)
    assert tables(folder) == expected, (name, moments)
    manifests = results.RunFolder(str(folder)).manifests()
    assert len(manifests) == 1 == len(list((folder/'manifests').glob('*.json'))), (name, moments)
    shutil.rmtree(folder)
    return killed

def quiet_end(): work(home/'whole')
assert process(quiet_end) == 0
expected = tables(home/'whole')
moment = 1
while until_complete('each', [moment]): moment += {stride}
chance = random.Random(3)
for i in range(chains): until_complete('chain', [chance.randint(1, 30) for _ in range(8)])
print(json.dumps(dict(moments=moment - {stride}, stride={stride}, chains=chains)))
'''


def test_killed_at_every_file_operation(warm, tmp_path):
    "Each moment between two file operations, and half-way through each write, of cells and of the compaction, is tried once, or every third of them where it is not the nightly form; then chains of them."
    done = warm.python(every_moment.format(home=str(tmp_path), chains=kills_wanted//2, stride=stride))
    assert done.status == 0, done.err[-3000:]
    tried = json.loads(done.out.splitlines()[-1])
    tell(**tried)
    assert tried['moments'] > 60
