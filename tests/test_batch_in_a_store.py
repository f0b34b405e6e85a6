"""`vdb batch` and `vdb run` with `--out s3://...`, `gs://...` and `az://...`: real servers, killed drivers, lost answers, a store that is out."""
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from stores import store
from test_batch import night  # noqa: F401 (a fixture)
from test_shards import assert_same, alone, small  # noqa: F401 (a fixture)

pytestmark = pytest.mark.timeout(300)
os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'  # Read when gcsfs is imported; what it asks for is not in the fake


@pytest.fixture(params=['s3', 'gs', 'az'])
def lab(request, tmp_path, monkeypatch):
    "A store, how this process reaches it, and `vdb` that does."
    pytest.importorskip(dict(s3='s3fs', gs='gcsfs', az='adlfs')[request.param])
    with store(request.param, tmp_path) as made:
        made.environment['AWS_MAX_ATTEMPTS'] = '1'  # s3fs still tries five times
        for name, value in made.environment.items(): monkeypatch.setenv(name, value)
        yield made, fsspec.url_to_fs(made.url, use_listings_cache=False, skip_instance_cache=True)[0]


def faults_once(proxy, *wanted: tuple[str, str]):
    "Make each of these faults at the first request whose path holds what it names; what is left was not made."
    left = [*wanted]
    def fault(method, path):
        found = next((w for w in left if w[1] in path and method in ('PUT', 'POST')), None)
        if found: left.remove(found)
        return found[0] if found else ''
    proxy.fault = fault
    return left


def events(fs) -> list[dict]: return [json.loads(c) for c in fs.cat(fs.glob('lab/night/ledger/*.json')).values()] if fs.exists('lab/night/ledger') else []
def workplaces(fs) -> list[str]: return [p for e in events(fs) if e['event'] == 'began' and os.path.exists(p := f'{tempfile.gettempdir()}/vdb-{e["mark"]}')]


def wait_for(what, process, within_s: float = 60):
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline and not process.ended(), process.wait() if process.ended() else 'it waits'
        time.sleep(.05)


def test_a_batch_whose_driver_is_killed(warm, night, lab):
    "What an attempt had made is in the store; the next one goes on with it, though answers are lost, and each task is published once."
    begin, log, _ = night
    made, fs = lab
    log.with_name('hold-b').touch()  # While it is there, b does not end
    first = warm.start(*begin('ab', out='unused')[:-3], '--out', f'{made.url}/night', '--processes', 1, '--quiet', env=made.environment)
    def b(): return next((e['folder'] for e in events(fs) if e['event'] == 'began' and e['task'].startswith('b-')), None)
    wait_for(lambda: b() and fs.exists(f'lab/night/{b()}/out/seen'), first)
    first.kill_after(0)
    deadline = time.monotonic() + 10
    while workplaces(fs) and time.monotonic() < deadline: time.sleep(.1)
    assert not workplaces(fs)
    status = json.loads(warm('batch', 'status', f'{made.url}/night/', '--json', env=made.environment).out)
    assert (status['done'], status['waiting'], status['running']) == (1, 1, 0)

    log.with_name('hold-b').unlink()
    refused = [('500', 'progress.json'), ('503', 'log.txt')] if made.kind != 'az' else []  # Its library waits 15 s or more after each: nightly
    left = faults_once(made.proxy, ('deaf', 'published-'), ('deaf', 'began-'), ('cut', 'attempt.json'), ('slow', 'claims'), *refused)
    done = warm('batch', 'resume', f'{made.url}/night', '--json', '--quiet', env=made.environment)
    found = json.loads(done.out)
    assert done.status == 0 and not left, (done, left)
    assert found['done'] == 2 and [x['attempts'] for x in found['tasks']] == [1, 2]
    assert [fs.cat_file(f'lab/night/{x["folder"]}/out/seen') for x in found['tasks']] == [b'x', b'xx']
    assert Counter(e['event'] for e in events(fs)) == {'began': 3, 'ended': 1, 'published': 2}
    assert Counter(log.read_text().split('\n')[:-1]) == {'begun a': 1, 'ended a': 1, 'begun b': 2, 'ended b': 1}
    assert found['site'] == f'{made.url}/night/site/index.html' and {x['id'] for x in found['tasks']} == {Path(p).stem for p in fs.ls('lab/night/site', detail=False)} - {'index'}
    assert not workplaces(fs) and not [p for p in fs.find('lab') if '/claims/' in p or 'check-' in p]


@pytest.mark.parametrize('lab', ['s3'], indirect=True)
def test_a_store_that_is_out_for_a_while(warm, night, lab):
    "Attempts and driver wait; who only looks is told at once."
    begin, log, _ = night
    made, fs = lab
    for x in 'ab': log.with_name(f'hold-{x}').touch()
    started = warm.start(*begin('ab', out='unused')[:-3], '--out', f'{made.url}/night', '--json', '--quiet', env=made.environment, setup='import vdb.cluster.local; vdb.cluster.local.SILENT_S = 10.')
    wait_for(lambda: log.read_text().count('begun') == 2, started)
    made.proxy.down = True
    looked = warm('batch', 'status', f'{made.url}/night', env=made.environment)
    assert looked.status == 1 and len(looked.err.splitlines()) == 1 and 'cannot be read' in looked.err, looked
    for x in 'ab': log.with_name(f'hold-{x}').unlink()
    time.sleep(14)  # To wait is no silence
    assert log.read_text().count('ended') == 2 and not started.ended()  # They are done, and cannot say so
    made.proxy.heal()
    done = started.wait()
    assert done.status == 0 and '. Trying again for 10' in done.err, done
    found = json.loads(done.out)
    assert [(x['state'], x['attempts']) for x in found['tasks']] == [('done', 1)]*2
    assert Counter(e['event'] for e in events(fs)) == {'began': 2, 'published': 2} and not workplaces(fs)


def test_what_cannot_be_written(warm, night, lab):
    "One line, before anything starts."
    begin, log, _ = night
    made, fs = lab
    for out, said in ((f'{made.kind}://elsewhere/night', 'cannot be written'), ('s4://lab/night', 'cannot be opened')):
        done = warm(*begin('a', out='unused')[:-3], '--out', out, env=made.environment)
        assert done.status in (1, 2) and len(done.err.splitlines()) == 1 and said in done.err and out in done.err, done
    if made.kind == 's3':  # There are servers of S3 without it
        made.proxy.unknown = 'if-none-match'
        done = warm(*begin('a', out='unused')[:-3], '--out', f'{made.url}/night', env=made.environment)
        assert done.status == 1 and len(done.err.splitlines()) == 1 and 'lacks conditional writes' in done.err, done
    assert not log.read_text() and not fs.exists('lab/night')


def test_a_run(warm, lab, alone):
    "By two processes in S3, by one elsewhere: as one makes it on a disk."
    made, fs = lab
    by = ['--engine', 'local', '--processes', 2] if made.kind == 's3' else []
    done = warm('run', 'tiny', *small, *by, '--out', f'{made.url}/run', env=made.environment)
    assert done.status == 0, done.err
    fs.get('lab/run', str(copy := alone.parent/made.kind), recursive=True)
    assert_same(copy, alone)
    assert not [p for p in fs.find('lab/run') if '/shards/' in p or '/claims/' in p]
