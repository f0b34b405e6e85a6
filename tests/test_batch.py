"""`vdb batch` from a shell: killed, cancelled, resumed, twice at once, into a folder with an awkward name; and what it leaves."""
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.timeout(300)

# Each attempt appends a line when it begins and one when it ends; in `out` it says where it was.
code = """
import os, time
os.makedirs(out, exist_ok=True)
with open(log, 'a') as file: file.write(f'begun {name}\\n')
open(f'{out}/seen', 'a').write('x')
time.sleep(seconds)
while os.path.exists(f'{hold}-{name}'): time.sleep(.05)
with open(log, 'a') as file: file.write(f'ended {name}\\n')
"""


def notebook(path: Path) -> Path:
    cells = [new_code_cell("name: str = 'a'\nseconds: float = 0\nhold = ''\nlog = ''\nout = 'out'", metadata=dict(tags=['parameters'])), new_code_cell(code), new_code_cell('name')]
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), path)
    return path


@pytest.fixture
def night(tmp_path):
    "The arguments that begin a batch of `names`, and the log that its notebooks write."
    log = tmp_path/'log'
    log.touch()
    def begin(names, seconds=0., rules=(), out='night'):
        grid = dict(parameters=dict(name=list(names), seconds=seconds, log=str(log), hold=str(tmp_path/'hold')), rules=list(rules))
        (tmp_path/'grid.yaml').write_text(json.dumps(grid, ensure_ascii=False))  # JSON is YAML
        return ['batch', notebook(tmp_path/'wait.ipynb'), '--grid', tmp_path/'grid.yaml', '--out', tmp_path/out, '--quiet']
    return begin, log, tmp_path/'night'


def events(folder: Path) -> list[dict]: return [json.loads(p.read_text()) for p in (folder/'ledger').glob('*.json')]


def wait_for(said: str, log: Path, process, count: int = 1):
    deadline = time.monotonic() + 60
    while log.read_text().count(said) < count:
        assert time.monotonic() < deadline and not process.ended(), log.read_text()
        time.sleep(.02)


def running_attempts(folder: Path) -> list[int]:
    "Processes that were started for this batch, wherever they hang now."
    marks = {e['mark'] for e in events(folder) if e['event'] == 'began'}
    def mark(p):
        try: return p.environ().get('VDB_ATTEMPT')
        except (psutil.Error, OSError): return None
    return [p.pid for p in psutil.process_iter() if mark(p) in marks]


def gone(folder: Path, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while left := running_attempts(folder):
        if time.monotonic() > deadline: return False
        time.sleep(.1)
    return not left


def test_a_batch_whose_driver_is_killed(warm, night):
    "Nothing runs on, and the next driver does what is missing, once, with what the interrupted attempt had left."
    begin, log, folder = night
    log.with_name('hold-b').touch()
    first = warm.start(*begin('abc'), '--processes', 1)
    wait_for('begun', log, first, 2)
    first.kill_after(.2)
    assert gone(folder)
    assert Counter(log.read_text().split()) == {'begun': 2, 'ended': 1, 'a': 2, 'b': 1}
    status = json.loads(warm('batch', 'status', folder, '--json').out)
    assert (status['done'], status['waiting'], status['running'], status['failed']) == (1, 2, 0, 0)  # Not running, whatever the last one wrote
    log.with_name('hold-b').unlink()
    done = warm('batch', 'resume', folder, '--json', '--quiet')
    found = json.loads(done.out)
    assert done.status == 0, done.err
    assert found['done'] == 3 and [x['attempts'] for x in found['tasks']] == [1, 2, 1]
    assert Counter(log.read_text().split('\n')[:-1]) == {'begun a': 1, 'ended a': 1, 'begun b': 2, 'ended b': 1, 'begun c': 1, 'ended c': 1}
    assert [(folder/x['folder']/'out'/'seen').read_text() for x in found['tasks']] == ['x', 'xx', 'x']
    kinds = Counter(e['event'] for e in events(folder))
    assert kinds == {'began': 4, 'ended': 1, 'published': 3}
    assert warm('batch', 'resume', folder, '--quiet').status == 0 and Counter(e['event'] for e in events(folder)) == kinds
    assert {p.name for p in (folder/'site').iterdir()} == {'index.html'} | {f'{x["id"]}.{e}' for x in found['tasks'] for e in ('html', 'ipynb')}


def test_a_batch_that_is_cancelled(warm, night):
    "From another terminal, and gone on with; meanwhile nobody else can drive it."
    begin, log, folder = night
    for x in 'ab': log.with_name(f'hold-{x}').touch()
    started = warm.start(*begin('ab'))
    wait_for('begun', log, started)
    second = warm(*begin('ab'))
    assert second.status == 1 and 'is at work in another process' in second.err
    assert warm('batch', 'cancel', folder).status == 0
    done = started.wait()
    assert done.status == 1 and 'cancelled 2' in done.out, done
    assert gone(folder) and 'ended' not in log.read_text()
    assert json.loads(warm('batch', 'status', folder, '--json').out)['cancelled'] == 2
    started = warm.start('batch', 'resume', folder, '--quiet')  # It runs again: that is what resume means
    wait_for('begun', log, started, 3)
    started.signal(signal.SIGINT)
    assert started.wait().status == 130 and gone(folder)
    assert json.loads(warm('batch', 'status', folder, '--json').out)['waiting'] == 2


def test_an_attempt_that_ends_without_a_word(warm, night):
    "Its process is killed, or stands still: another attempt is made, and it says why in the end."
    begin, log, folder = night
    log.with_name('hold-a').touch()
    started = warm.start(*begin('a'), '--retries', 1, '--json', setup='import vdb.cluster.local; vdb.cluster.local.SILENT_S = 3.')
    wait_for('begun', log, started)
    def attempt(): return next(p for p in psutil.process_iter(['cmdline']) if str(folder) in ' '.join(p.info['cmdline'] or ()) and 'vdb.cluster.attempt' in ' '.join(p.info['cmdline']))
    os.kill(attempt().pid, signal.SIGKILL)
    wait_for('begun', log, started, 2)
    os.kill(attempt().pid, signal.SIGSTOP)
    done = started.wait()
    (task,) = json.loads(done.out)['tasks']
    assert done.status == 1 and (task['state'], task['attempts']) == ('failed', 2)
    assert 'its heartbeat had stopped' in task['reason'] and gone(folder)
    assert sorted(e['outcome'] for e in events(folder) if e['event'] == 'ended') == ['hung', 'lost']
    assert task['reason'].split(':')[0] in (folder/'site'/'index.html').read_text()


def test_a_folder_with_an_awkward_name(warm, night):
    "Braces are fields to papermill, and blanks separate words to a shell."
    begin, log, folder = night
    awkward = 'the {name} of #1 "night" é'
    done = warm(*begin(['a', '{name}', 'x"; 1/0 #', '🙂\n'], out=awkward), '--json')
    found = json.loads(done.out)
    assert done.status == 0 and found['done'] == 4, done
    assert Counter(log.read_text().split('\n')) >= Counter(['ended a', 'ended {name}', 'ended x"; 1/0 #', 'ended 🙂'])
    assert os.path.exists(found['site'])


def test_bad_input(warm, night, tmp_path):
    "One line before anything starts, and nothing is left."
    begin, log, folder = night
    def refused(*more, text=None, status=2):
        argv = begin('a')
        if text is not None: (tmp_path/'grid.yaml').write_text(text)
        done = warm(*argv, *more)
        assert done.status == status and len(done.err.splitlines()) == 1, (text, done)
        assert not folder.exists()
        return done.err
    assert 'did you mean name' in refused(text='parameters: {nmae: [a]}').lower()
    assert 'out' in refused(text='parameters: {out: [elsewhere]}')
    assert 'seconds' in refused(text='parameters: {seconds: [long]}')
    assert '--yes' in refused(text=json.dumps(dict(parameters=dict(name=[str(i) for i in range(1000)], seconds=[*range(1000)]))))
    assert refused(text='parameters: {name: [a], name: [b]}')
    assert refused(text='parameters: [')
    assert refused('--deadline', '-1')
    assert 'no batch.json' in warm('batch', 'status', tmp_path).err
    plain = tmp_path/'plain.ipynb'
    nbformat.write(new_notebook(cells=[new_code_cell('1')]), plain)
    begin('a')
    assert 'tag' in warm('batch', plain, '--grid', tmp_path/'grid.yaml', '--out', folder).err
    assert warm('batch', tmp_path/'grid.yaml', '--grid', tmp_path/'grid.yaml', '--out', folder).status == 2
    huge = warm(*begin('a', rules=[dict(resources=dict(gpus=64))]))
    assert huge.status == 2 and 'can never run here' in huge.err
