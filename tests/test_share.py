"""Several processes make one run together, and one that grows: no cell is made twice, no row is lost, and the end is that of one process that was asked for everything at once."""
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

from vdb.core import RunError

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


# What a stranger's folder, or a bad moment, may hold


class Painter:
    "A model without weights."
    name = 'painter'
    def __init__(self):
        from vdb.core import Settings
        self.defaults, self.made = Settings(frames=3, height=16, width=16, fps=8.), []
    def fingerprint(self): return dict(name=self.name, weights='0')
    def generate(self, prompt, seed, settings):
        import numpy as np
        from vdb.core import Video
        self.made.append((prompt.text, seed))
        return Video(np.random.default_rng([seed, len(prompt.text)]).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8), 8.)


def painted(path, seeds=2, metrics=('sharpness',), model=None, **how):
    from vdb.bench import run
    return run(model or Painter(), ['a', 'b'], seeds, out=str(path), metrics=list(metrics), progress=False, threads=1, **how)


def manifest(path: Path, name: str, parts: object, replaces: object):
    from vdb.core import canonical_json, digest
    body = dict(parts=parts, replaces=replaces)
    (path/'manifests'/name).write_text(canonical_json(body | dict(hash=digest(body))))


@pytest.mark.parametrize('parts, replaces', [({'../victim': '0'}, []), ({'scores/../../victim/a.parquet': '0'}, []), ({}, ['../../victim']), ([], []), ({}, 5), ({'scores/a.parquet': 0}, [])])
def test_a_manifest_names_nothing_outside_of_its_run(tmp_path, parts, replaces):
    "It may be a stranger's: what it says is replaced is removed."
    from vdb.rescoring import rescore
    path, victim = tmp_path/'run', tmp_path/'victim'
    painted(path)
    victim.mkdir()
    (victim/'precious.txt').write_text('x')
    manifest(path, 'a.json', parts, replaces)
    manifest(path, 'b.json', {}, ['a.json'])
    rescore(str(path), ['sharpness'], progress=False)  # What is no manifest of ours does not count, and is replaced
    assert (victim/'precious.txt').read_text() == 'x' and len(opened(path).scores) == 4


@pytest.mark.parametrize('folder', ['claims', 'samples', 'manifests', 'videos'])
def test_nothing_is_swept_behind_a_link(tmp_path, folder):
    path, other = tmp_path/'run', tmp_path/'other'
    painted(path)
    other.mkdir()
    if (path/folder).exists():
        for file in (path/folder).iterdir(): file.rename(other/file.name)
        (path/folder).rmdir()
    for name in ('thesis.tex', 'cell.0.json', 'x.parquet', 'x.part'):
        (other/name).write_text('x')
        os.utime(other/name, (time.time() - 7200,)*2)
    (path/folder).symlink_to(other)
    from vdb.results import RunFolder
    with suppress(RunError): RunFolder(str(path)).compact()  # A manifest that is none is refused
    assert {'thesis.tex', 'cell.0.json', 'x.parquet', 'x.part'} <= {p.name for p in other.iterdir()}


def test_no_code_is_run_from_a_record(tmp_path, monkeypatch):
    "A metric of a protocol is looked up, never loaded from a file that the protocol names."
    from dataclasses import replace
    from vdb.rescoring import rescore
    from vdb.results import RunFolder
    monkeypatch.chdir(tmp_path)
    run = painted('run')
    (tmp_path/'run'/'evil.py').write_text(f'open({str(tmp_path/"ran")!r}, "w")')
    evil = replace(run.protocol, metrics=(dict(run.protocol.metrics[0], name='run/evil.py:f'),), margins={})
    RunFolder('run')._write_protocol(evil)
    for act in (lambda: rescore('run', progress=False), lambda: rescore('run', ['sharpness'], progress=False), lambda: painted('run', 3)):
        try: act()
        except RunError: pass
    assert not (tmp_path/'ran').exists()


def test_claims_that_are_none(tmp_path):
    from vdb.results import RunFolder
    painted(tmp_path/'run')
    claims = tmp_path/'run'/'claims'
    claims.mkdir(exist_ok=True)
    for name in ('tables.x.json', 'tables.json', 'records.12345678901.json'): (claims/name).write_text('['*100_000)
    assert painted(tmp_path/'run', 3).counts['ok'] == 6
    for file in claims.iterdir(): file.unlink()
    claims.rmdir()
    claims.write_text('in the way')
    with pytest.raises(Exception, match='in the way'): painted(tmp_path/'run', 4)


def test_a_run_that_is_rescored_meanwhile_stops(tmp_path):
    "No number of an older version of a metric is committed under the newer one."
    import vdb.metrics.base as base
    from vdb.rescoring import rescore
    code = "from vdb.metrics.base import metric\n@metric(kind='clip', unit='1', direction='higher', margin=.1)\ndef brightness_of_{name}(video): return video.frames.mean()/{by}\n"
    file, name = tmp_path/'mine.py', tmp_path.name.replace('-', '_')
    file.write_text(code.format(name=name, by=255))
    spec = f'{file}:brightness_of_{name}'

    class Slow(Painter):
        def generate(self, prompt, seed, settings):
            if len(self.made) == 2:
                other = base.registry.pop(f'brightness_of_{name}')
                del __import__('sys').modules[other.function.__module__]
                file.write_text(code.format(name=name, by=510))
                rescore(str(tmp_path/'run'), [spec], progress=False)
            return super().generate(prompt, seed, settings)
    with pytest.raises(RunError, match='meanwhile'): painted(tmp_path/'run', 3, [spec], Slow())
    done = painted(tmp_path/'run', 3, [spec])
    assert done.counts['ok'] == 6
    from vdb.media.read import read_video
    clips = {(g.prompt, g.seed): read_video(tmp_path/'run'/g.path).frames.mean()/510 for g in done.generations.itertuples()}
    assert {(s.prompt, s.seed): s.value for s in done.scores.itertuples()} == pytest.approx(clips)


def test_a_metric_that_is_added_meanwhile_is_measured_on_all(tmp_path):
    from vdb.rescoring import rescore

    class Slow(Painter):
        def generate(self, prompt, seed, settings):
            if len(self.made) == 2: rescore(str(tmp_path/'run'), ['temporal_flicker'], progress=False)
            return super().generate(prompt, seed, settings)
    painted(tmp_path/'run', 3, model=Slow())
    assert painted(tmp_path/'run', 3).scores.groupby('metric').size().to_dict() == {'sharpness': 6, 'temporal_flicker': 6}


def test_scores_of_a_clip_that_was_away_are_measured_when_it_is_back(tmp_path):
    from vdb.rescoring import rescore
    run = painted(tmp_path/'run')
    clip = tmp_path/'run'/run.generations['path'][0]
    clip.rename(tmp_path/'away')
    with pytest.warns(UserWarning, match='could not be scored'): rescore(str(tmp_path/'run'), progress=False)
    (tmp_path/'away').rename(clip)
    assert painted(tmp_path/'run').scores['status'].tolist() == ['ok']*4


def test_a_clip_made_elsewhere_that_is_mended_or_added_is_scored(tmp_path):
    import numpy as np
    from vdb.core import Video
    from vdb.external import score
    from vdb.media.write import write_video
    def clip(name): write_video(Video(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), 8.), tmp_path/'clips'/name)
    (tmp_path/'clips').mkdir()
    for name in ('x-0.mp4', 'x-1.mp4', 'y-0.mp4'): clip(name)
    how = dict(out=str(tmp_path/'run'), metrics=['sharpness'], progress=False)
    assert score(tmp_path/'clips', **how).counts['skipped'] == 1
    (tmp_path/'clips'/'y-1.mp4').write_text('no video')
    assert score(tmp_path/'clips', **how).counts == dict(ok=3, failed=1, skipped=0, planned=0)
    clip('y-1.mp4')
    with pytest.raises(RunError, match='another protocol'): score(tmp_path/'clips', **how)
    assert score(tmp_path/'clips', **how, retry='failed').counts['ok'] == 4
    fresh = score(tmp_path/'clips', **how | dict(out=str(tmp_path/'fresh')))
    assert fresh.fingerprint == opened(tmp_path/'run').fingerprint
    assert_frame_equal(fresh.scores, opened(tmp_path/'run').scores, check_exact=True)


def test_margins_and_tags_are_not_lost_or_set_afterwards(tmp_path):
    from vdb.bench import run
    from vdb.core import Prompt
    how = dict(out=str(tmp_path/'run'), metrics=['sharpness'], progress=False, threads=1)
    run(Painter(), [Prompt('a', tags=dict(motion='fast'))], 1, **how)
    with pytest.raises(RunError, match='margins.sharpness'): run(Painter(), ['a'], 2, **how, margins=dict(sharpness=3.))
    assert run(Painter(), ['a'], 2, **how).scores['motion'].tolist() == ['fast']*2


def test_a_file_of_metrics_that_was_moved_is_the_same_metric(tmp_path):
    "And one that has the name of another metric is refused, whichever is loaded first."
    from vdb.core import InputError
    from vdb.metrics.base import get_metric
    code, name = "from vdb.metrics.base import metric\n@metric(kind='{kind}', unit='1', direction='higher')\ndef {name}({args}): return 1.\n", 'one_of_' + tmp_path.name.replace('-', '_')
    prints = []
    for place in ('a', 'b'):
        (tmp_path/place).mkdir()
        (tmp_path/place/'mine.py').write_text(code.format(kind='clip', name=name, args='video'))
        found = get_metric(f'{tmp_path/place/"mine.py"}:{name}')
        prints.append(found.fingerprint())
        __import__('vdb.metrics.base', fromlist=['registry']).registry.pop(name)
    assert prints[0] == prints[1]
    (tmp_path/'sharp.py').write_text(code.format(kind='clip', name='sharpness', args='video'))
    with pytest.raises(InputError, match='already a metric sharpness'): get_metric(f'{tmp_path/"sharp.py"}:sharpness')
    (tmp_path/'pair.py').write_text(code.format(kind='pair', name=name + '_pair', args='a, b'))
    with pytest.raises(InputError, match='one by one'): painted(tmp_path/'run', 1, [f'{tmp_path/"pair.py"}:{name}_pair'])
    assert not (tmp_path/'run').exists()
