"""`vdb run --engine local`: several processes make one run as one does, whatever becomes of them, and leave nothing behind."""
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)
small = ['--frames', 5, '--height', 32, '--width', 32, '--steps', 2, '--threads', 1, '--device', 'cpu', '--seeds', 1, '--metric', 'temporal_flicker', '--metric', 'adherence', '--no-report', '--quiet']
two = ['--engine', 'local', '--processes', 2]


def shards(out: Path) -> list[psutil.Process]:
    "The processes that work for a run, wherever they hang now."
    def command(p):
        try: return ' '.join(p.cmdline())
        except psutil.Error: return ''
    return [p for p in psutil.process_iter() if 'vdb.cluster.shards' in (line := command(p)) and f'{out}/shards/' in line]


def wait_for(what, process, within_s: float = 60):
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline and not (process and process.ended()), process and process.wait()
        time.sleep(.02)
    return found


def read(file: Path) -> str:
    try: return file.read_text()
    except FileNotFoundError: return ''  # Given back


def in_a_cell(out: Path, working: list[psutil.Process]) -> psutil.Process | None:
    "One that has claimed a cell, held there; none where neither has at this moment."
    for p in working:
        p.suspend()
        if any(f'"pid": {p.pid},' in text for f in (out/'claims').glob('*.json') if (text := read(f))): return p
        p.resume()


def committed(out: Path) -> int: return len([*(out/'manifests').glob('*.json')])
def opened(out: Path):
    from vdb.runs import open_run
    return open_run(str(out))


@pytest.fixture(scope='module')
def alone(warm, tmp_path_factory):
    "The run that one process makes."
    out = tmp_path_factory.mktemp('alone')/'run'
    done = warm('run', 'tiny', *small, '--out', out)
    assert done.status == 0, done.err
    return out


def assert_same(out: Path, alone: Path):
    from pandas.testing import assert_frame_equal
    from vdb.results import RunFolder
    a, b = opened(out), opened(alone)
    assert a.complete and a.fingerprint == b.fingerprint
    for table in ('generations', 'scores'): assert_frame_equal(getattr(a, table), getattr(b, table), check_exact=True, obj=table)
    for clip in (alone/'videos').iterdir(): assert (out/'videos'/clip.name).read_bytes() == clip.read_bytes()
    assert (out/'environment.json').read_bytes() == (alone/'environment.json').read_bytes()
    folder = RunFolder(str(out))
    rows = [r for m in folder.manifests().values() for p, h in m['parts'].items() if p.startswith('generations/') for r in folder._read_part(p, h)['id'].to_pylist()]
    assert len(rows) == len(set(rows)) == len(a.generations)  # Doubles included, had there been any


def test_two_processes_that_are_killed(warm, alone, tmp_path):
    "Both, one in the middle of a cell: they are begun again, and the run is to the byte the one that a single process makes."
    out = tmp_path/'run'
    started = warm.start('run', 'tiny', *small, *two, '--out', out, '--json')
    wait_for(lambda: committed(out) >= 2, started)
    working = shards(out)
    assert len(working) == 2 and len({json.loads(f.read_text())['run']['out'] for f in out.glob('shards/*/shard.json')}) == 1
    wait_for(lambda: in_a_cell(out, working), started)
    for p in working: p.kill()
    assert committed(out) < 12
    done = started.wait()
    assert done.status == 0 and json.loads(done.out)['ok'] == 12, done
    assert_same(out, alone)
    assert not (out/'shards').exists() and not shards(out)
    left = [json.loads(f.read_text())['pid'] for f in (out/'claims').glob('*')]
    assert len(left) == len({*left}) and {*left} <= {p.pid for p in working}, left  # One that was looking whether its cell was there already: nobody claims that again


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped(warm, tmp_path, how):
    "Its processes end with it."
    out = tmp_path/'run'
    started = warm.start('run', 'tiny', *small, *two, '--out', out, '--seeds', 100)  # Minutes of work
    wait_for(lambda: len([*out.glob('shards/*/progress.json')]) == 2, started)
    assert len(shards(out)) == 2
    started.signal(how)
    done = started.wait()
    assert done.status == (130 if how == signal.SIGINT else -9), done
    wait_for(lambda: not shards(out), None, 0 if how == signal.SIGINT else 10)


def test_mistakes(warm, tmp_path):
    "One line and status 2, whether this process saw it or another one met it; and no folder."
    def refused(*argv):
        done = warm('run', *argv, cwd=tmp_path)
        assert done.status == 2 and len(done.err.splitlines()) == 1 and not os.listdir(tmp_path), done
        return done.err
    assert 'sharpnes' in refused('tiny', *two, '--out', 'a', '--metric', 'sharpnes')
    assert 'no-such' in refused('no-such-model', *small, *two, '--out', 'a')  # A process of it does
    assert '--out' in refused('tiny', *two)
    assert 'local or ray' in refused('tiny', '--engine', 'slurm', '--out', 'a')
    assert 'Ray' in refused('tiny', *two, '--address', 'auto', '--out', 'a')
    assert '--engine' in refused('tiny', '--processes', 2) and '--engine' in refused('tiny', '--address', 'auto')
    assert 'can never be made here' in refused('tiny', *two, '--out', 'a', '--threads', 1000)
