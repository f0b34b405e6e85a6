"""Several processes make one run together, and one that grows: no cell is made twice, no row is lost, and the end is that of one process that was asked for everything at once."""
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

small = ['--frames', 9, '--height', 32, '--width', 32, '--steps', 2, '--threads', 1, '--no-report', '--quiet']
logged = """
import os
from vdb.models.pipelines import DiffusersModel
log, plain = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), DiffusersModel.generate
def generate(self, prompt, seed, settings, *more):
    os.write(log, f'{{os.getpid()}} {{prompt.id}} {{seed}}\\n'.encode())
    return plain(self, prompt, seed, settings, *more)
DiffusersModel.generate = generate
"""


@pytest.fixture(scope='module')
def suites(tmp_path_factory):
    "A suite, and one that has more prompts."
    home, texts = tmp_path_factory.mktemp('suites'), ['a red circle', 'a blue square moves left', 'slowly right on black', 'a green circle']
    for name, n in (('few.txt', 2), ('more.txt', 4)): (home/name).write_text('\n'.join(texts[:n]))
    return home


def opened(path):
    from vdb.runs import open_run
    return open_run(str(path))


def lines(log: Path) -> list[list[str]]: return [x.split() for x in log.read_text().splitlines()] if log.exists() else []


def assert_same(found, expected):
    a, b = opened(found), opened(expected)
    assert a.protocol == b.protocol and a.fingerprint == b.fingerprint
    for table in ('generations', 'scores'): assert_frame_equal(getattr(a, table), getattr(b, table), check_exact=True, obj=table)
    keys = ['prompt', 'seed', 'stage', 'repeat', 'unit']
    assert_frame_equal(a.samples[keys], b.samples[keys])
    clips = [{p.name: p.read_bytes() for p in (folder/'videos').iterdir()} for folder in (found, expected)]
    assert clips[0] == clips[1]


def test_two_processes_and_three_extensions_make_what_one_makes_at_once(warm, pipeline, suites, tmp_path):
    log, out, whole, model = tmp_path/'log', tmp_path/'run', tmp_path/'whole', pipeline('ltx')
    once = warm('run', model, '--suite', suites/'more.txt', '--seeds', 4, '--metric', 'temporal_flicker', '--metric', 'sharpness', '--out', whole, *small)
    assert once.status == 0, once.err
    steps = [['--suite', suites/'few.txt', '--seeds', 2, '--metric', 'temporal_flicker'],
             ['--suite', suites/'few.txt', '--seeds', 4, '--metric', 'temporal_flicker'],
             ['--suite', suites/'few.txt', '--seeds', 4, '--metric', 'temporal_flicker', '--metric', 'sharpness'],
             ['--suite', suites/'more.txt', '--seeds', 4, '--metric', 'temporal_flicker', '--metric', 'sharpness']]
    for step in steps:
        both = [warm.start('run', model, *step, '--out', out, *small, setup=logged.format(log=str(log))) for _ in range(2)]
        for done in [p.wait() for p in both]: assert done.status == 0, done.err
    made = Counter((prompt, seed) for _, prompt, seed in lines(log) if prompt != 'warm-up')
    assert len(made) == 16 and set(made.values()) == {1}, 'a cell was generated twice'
    assert len({pid for pid, prompt, _ in lines(log) if prompt != 'warm-up'}) > 3, 'one process did all the work'
    assert_same(out, whole)
    assert len(list((out/'protocols').iterdir())) == 3 and not list((out/'claims').iterdir())
    again = warm.python(f'from vdb.results import RunFolder, command_of; print(command_of(RunFolder({str(out)!r})))').out
    assert '--seeds 4' in again and f'--suite {suites/"more.txt"}' in again and again.count('--metric') == 2


def test_what_a_killed_process_was_making_is_made_by_the_other(warm, pipeline, suites, tmp_path):
    log, out, model = tmp_path/'log', tmp_path/'run', pipeline('ltx')
    command = ['run', model, '--suite', suites/'more.txt', '--seeds', 4, '--metric', 'temporal_flicker', '--out', out, *small]
    slow = logged.format(log=str(log)) + 'import time\nfast = DiffusersModel.generate\ndef generate(*a): time.sleep(.3); return fast(*a)\nDiffusersModel.generate = generate\n'
    both = [warm.start(*command, setup=slow) for _ in range(2)]
    deadline = time.monotonic() + 120
    while len({x[0] for x in lines(log)}) < 2 and time.monotonic() < deadline: time.sleep(.01)
    time.sleep(.1)
    assert both[0].kill_after(0).status == -signal.SIGKILL
    done = both[1].wait()
    assert done.status == 0, done.err
    run = opened(out)
    assert run.complete and run.counts['ok'] == 16 and not list((out/'claims').iterdir())


writers = '''
import json, random, sys, time
from vdb.core import Generation, Prompt, Protocol, Settings
from vdb.results import RunFolder
protocol = Protocol(dict(name='m'), 's', tuple(Prompt(f'p{{i}}') for i in range(40)), tuple(range(4)), Settings(), (), {{}}, 'lossless')
folder, mine = RunFolder({path!r}), {mine}
folder.begin(protocol)
for i, g in enumerate(protocol.plan()):
    if i % 4 == mine: folder.commit([Generation(g.id, 'm', g.prompt, g.seed, 'ok')])
    if mine == 3 and i % 10 == 3: folder.compact()
folder.compact()
'''


def test_four_writers_and_compactions_lose_no_row(warm, tmp_path):
    "A commit that comes while tables are being replaced counts; readers see all of it at every moment."
    from vdb.results import RunFolder
    path, seen = tmp_path/'run', 0
    running = [warm.start(setup=writers.format(path=str(path), mine=i)) for i in range(4)]
    while not all([p.ended() for p in running]):
        if not (path/'protocol.json').exists(): continue
        now = len(RunFolder(str(path)).table('generations'))
        assert now >= seen, 'a committed row was not seen'
        seen = now
    for p in running: assert p.wait().status == 0, p.wait().err
    folder = RunFolder(str(path))
    folder.compact()
    assert len(folder.table('generations')) == 160 and len(folder.names('manifests')) == 1 and len(folder.names('generations')) == 1


def test_eight_extend_at_once(warm, tmp_path):
    "Each asks for ten seeds of its own, one by one: the protocol has all eighty, and every one before it is kept."
    code = '''
from vdb.core import Prompt, Protocol, Settings
from vdb.results import RunFolder
for seed in range(10*{n}, 10*{n} + 10): RunFolder({path!r}).begin(Protocol(dict(name='m'), 's', (Prompt('a'),), (seed,), Settings(), (), {{}}, 'lossless'))
'''
    running = [warm.start(setup=code.format(path=str(tmp_path/'run'), n=n)) for n in range(8)]
    for p in running: assert p.wait().status == 0, p.wait().err
    assert sorted(opened(tmp_path/'run').protocol.seeds) == [*range(80)]
    assert len(list((tmp_path/'run'/'protocols').iterdir())) == 79
