"""Whatever is wrong with what a user gives: one clear line on standard error, a non-zero exit, an object with `--json`, and nothing that was done is lost."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

small = ['--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--threads', 1, '--no-report', '--quiet']


def told(done, status: int, *parts: str) -> str:
    "The one line of an error."
    assert done.status == status, (done.status, done.out, done.err)
    lines = [x for x in done.err.splitlines() if x.strip()]
    assert len(lines) == 1 and lines[0].startswith('vdb: '), done.err
    assert len(lines[0]) < 600 and 'please report' not in lines[0] and not done.out.strip(), (done.err, done.out)
    for part in parts: assert part in lines[0], (part, lines[0])
    return lines[0]


def object_of(done, status: int) -> dict:
    "The object of an error."
    assert done.status == status and not done.err.strip(), (done.status, done.err)
    found = json.loads(done.out)
    assert found['error'] and found['message']
    return found


def opened(path):
    from vdb.runs import open_run
    return open_run(str(path))


@pytest.fixture(scope='module')
def home(tmp_path_factory, pipeline):
    "A folder with suites, folders that are no models, and files that are in the way."
    home = tmp_path_factory.mktemp('home')
    suites = {'ok.txt': 'a red circle\na blue square\n', 'empty.txt': '', 'blank.txt': '\n  \n', 'twice.txt': 'a red circle\na blue square\na red circle\n', 'bad.jsonl': '{"text": "a"}\n{"text":\n',
              'unknown.jsonl': '{"text": "a", "colour": "red"}\n', 'no-text.jsonl': '{"tags": {}}\n', 'list.jsonl': '[1]\n', 'nan.jsonl': '{"text": "a", "expect": {"speed": NaN}}\n',
              'id.jsonl': '{"text": "a", "id": "../../etc/x"}\n'}
    for name, text in suites.items(): (home/name).write_text(text)
    (home/'latin.txt').write_bytes('un carré'.encode('latin-1'))
    (home/'no-model').mkdir()
    (home/'file').write_text('in the way')
    pickled = home/'pickled'
    shutil.copytree(pipeline('ltx'), pickled)
    for f in pickled.rglob('*.safetensors'): f.rename(f.with_suffix('.bin'))
    broken = home/'broken'
    shutil.copytree(pipeline('ltx'), broken)
    for f in (broken/'vae').glob('*.safetensors'): f.write_bytes(f.read_bytes()[:500])
    return home


M = object()  # stands for the folder of a good pipeline
bad_calls = [
    ([M, '--suite', 'ok.txt', '--metric', 'sharpnes'], 2, ['sharpnes', 'did you mean sharpness']),
    ([M, '--suite', 'shape', *small], 2, ['no suite is called shape']),
    ([M, '--suite', 'empty.txt'], 2, ['empty.txt has no prompts']),
    ([M, '--suite', 'blank.txt'], 2, ['blank.txt has no prompts']),
    ([M, '--suite', 'twice.txt'], 2, ['twice.txt:3 has the prompt id a-red-circle', 'of line 1: each may occur once']),
    ([M, '--suite', 'bad.jsonl'], 2, ['bad.jsonl:2 is not JSON']),
    ([M, '--suite', 'unknown.jsonl'], 2, ['unknown.jsonl:1', 'colour']),
    ([M, '--suite', 'no-text.jsonl'], 2, ['no-text.jsonl:1 has no text']),
    ([M, '--suite', 'list.jsonl'], 2, ['list.jsonl:1 is list']),
    ([M, '--suite', 'nan.jsonl'], 2, ['nan.jsonl:1', 'NaN']),
    ([M, '--suite', 'id.jsonl'], 2, ['cannot name a file']),
    ([M, '--suite', 'latin.txt'], 2, ['latin.txt cannot be read']),
    ([M, '--suite', 'ok.txt', '--seeds', '1.5'], 2, ["'1.5'", 'how many (4) or which (0,1,7)']),
    ([M, '--suite', 'ok.txt', '--seeds', 'four'], 2, ["'four'"]),
    ([M, '--suite', 'ok.txt', '--seeds', '0,1.5'], 2, ["'0,1.5'"]),
    ([M, '--suite', 'ok.txt', '--seeds', '0'], 2, ['0 seeds were asked for']),
    ([M, '--suite', 'ok.txt', '--seeds=-2'], 2, ['-2 seeds were asked for']),
    ([M, '--suite', 'ok.txt', '--seeds', '99999999999999999999'], 2, ['1 to 1,000,000']),
    ([M, '--suite', 'ok.txt', '--seeds', '3,3'], 2, ['1 duplicate seeds, such as 3']),
    ([M, '--suite', 'ok.txt', '--seeds=-1,2'], 2, ['the seed -1 is not usable']),
    ([M, '--suite', 'ok.txt', '--seeds', ','], 2, ['no seeds']),
    ([M, '--suite', 'ok.txt', '--frames', '0'], 2, ['frames is 0: expected a whole number of at least 1']),
    ([M, '--suite', 'ok.txt', '--fps', 'nan'], 2, ['fps is nan']),
    ([M, '--suite', 'ok.txt', '--fps', '0'], 2, ['fps is 0.0: expected a number above 0']),
    ([M, '--suite', 'ok.txt', '--scheduler', 'Foo'], 2, ['no scheduler Foo', 'such as']),
    ([M, '--suite', 'ok.txt', '--margin', 'sharpness'], 2, ['metric=number']),
    ([M, '--suite', 'ok.txt', '--margin', 'sharpnes=1'], 2, ['sharpnes']),
    ([M, '--suite', 'ok.txt', '--margin', 'sharpness=-1'], 2, ['expected a positive number']),
    ([M, '--suite', 'ok.txt', '--threads', '0'], 2, ['--threads', 'see vdb run --help']),
    ([M, '--suite', 'ok.txt', '--sead', '0'], 2, ['--sead', 'see vdb run --help']),
    ([], 2, ['model', 'see vdb run --help']),
    (['no-such-folder/model/x', '--suite', 'ok.txt'], 2, ['no model is called no-such-folder/model/x']),
    (['no-model', '--suite', 'ok.txt'], 2, ['no-model has no model_index.json']),
    (['pickled', '--suite', 'ok.txt'], 2, ['pickled', 'safetensors']),
    (['broken', '--suite', 'ok.txt'], 2, ['broken could not be loaded']),
    (['owner/no-such-model', '--suite', 'ok.txt'], 2, ['owner/no-such-model could not be fetched']),
    ([M, '--suite', 'ok.txt', '--dtype', 'float64'], 2, ['float64', 'float32, float16 or bfloat16']),
    ([M, '--suite', 'ok.txt', '--scheduler', 'EulerDiscreteSchedulr'], 2, ['EulerDiscreteScheduler']),
    ([M, '--suite', 'ok.txt', '--scheduler', 'utils'], 2, ['no scheduler utils']),
    ([M, '--suite', 'ok.txt', '--device', 'tpu9'], 2, ['the device tpu9 is not known', 'cpu, cuda']),
    ([M, '--suite', 'ok.txt', '--threads', 100000], 2, ['100000 threads', '1 to 1024']),
    ([M, '--suite', 'ok.txt', '--margin', 'sharpness=nan'], 2, ['metric=number']),
    ([M, '--suite', 'ok.txt', '--margin', 'sharpness=inf'], 2, ['metric=number']),
    ([M, '--suite', 'ok.txt', '--frames', '2'], 2, ['frames is 2', 'the nearest are 1 and']),
    ([M, '--suite', 'ok.txt', '--height', '50', '--width', '64'], 2, ['height is 50', 'such as']),
    ([M, '--suite', 'ok.txt', *small, '--retry', 'all', '--out', 'good-no'], 2, ['expected failed or damaged']),
    ([M, '--suite', 'ok.txt', *small, '--out', 's4://bucket/run'], 2, ['s4://bucket/run cannot be opened']),
    ([M, '--suite', 'ok.txt', *small, '--out', 'file'], 1, ['file']),
    ([M, '--suite', 'ok.txt', *small, '--out', 'file/run'], 1, ['file']),
]


@pytest.mark.parametrize('argv, status, parts', bad_calls, ids=[' '.join(map(str, a[1:3])) + str(i) for i, (a, _, _) in enumerate(bad_calls)])
def test_bad_call(warm, pipeline, home, argv, status, parts):
    argv = ['run', *(pipeline('ltx') if a is M else a for a in argv)]
    there = sorted(p.name for p in home.iterdir())
    told(warm(*argv, cwd=home), status, *parts)
    assert sorted(p.name for p in home.iterdir()) == there, 'something was written'


def test_unknown_model_has_its_neighbours_named(warm, home):
    told(warm('run', 'tinny', '--suite', 'ok.txt', cwd=home), 2, 'no model is called tinny', 'Did you mean tiny')


@pytest.mark.parametrize('argv, kind', [(['run', 'nowhere', '--suite', 'ok.txt', '--json'], 'InputError'), (['show', 'file', '--json'], 'RunError'), (['run', '--json', '--sead'], None),
                                        (['score', 'no-model', '--json'], 'InputError'), (['compare', 'nowhere', 'nowhere', '--json'], 'RunError')])
def test_json_has_the_error_as_an_object(warm, home, argv, kind):
    done = warm(*argv, cwd=home)
    found = object_of(done, 1 if kind == 'RunError' else 2)
    if kind: assert found['error'] == kind and found['template'] and isinstance(found['fields'], dict)


def test_debug_shows_the_traceback(warm, home):
    done = warm('--debug', 'run', 'nowhere', '--suite', 'ok.txt', cwd=home)
    assert done.status == 1 and 'Traceback' in done.err and 'InputError' in done.err


def test_installed_command(home):
    "The same through the console script, in a fresh interpreter."
    script = Path(sys.executable).parent/'vdb'
    done = subprocess.run([script, 'run', 'nowhere', '--suite', 'empty.txt'], cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr == 'vdb: the suite empty.txt has no prompts: expected one a line\n' and not done.stdout
    done = subprocess.run([script, 'show', 'nowhere'], cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr == 'vdb: nowhere is not a run: it has no protocol.json\n'


# Runs that cannot be used

@pytest.fixture(scope='module')
def run_folder(warm, pipeline, home):
    done = warm('run', pipeline('ltx'), '--suite', 'ok.txt', '--seeds', 2, '--out', 'good', *small, cwd=home)
    assert done.status == 0, done.err
    return home/'good'


def spoilt(run_folder, tmp_path, name, text):
    folder = tmp_path/'run'
    shutil.copytree(run_folder, folder)
    (folder/name).write_text(text)
    return folder


@pytest.mark.parametrize('command', [['show'], ['verify'], ['report'], ['compare', '.']])
def test_not_a_run(warm, home, command):
    told(warm(*command, home/'no-model', cwd=home), 1, 'is not a run: it has no protocol.json')


def test_older_version(warm, pipeline, run_folder, tmp_path):
    d = json.loads((run_folder/'protocol.json').read_text())
    folder = spoilt(run_folder, tmp_path, 'protocol.json', json.dumps(d | dict(version=0)))
    before = snapshot(folder)
    for argv in (['show', folder], ['run', pipeline('ltx'), '--suite', run_folder.parent/'ok.txt', '--seeds', 2, '--out', folder, *small]):
        told(warm(*argv), 1, 'version 0 of the layout', 'reads version 4')
    assert snapshot(folder) == before


@pytest.mark.parametrize('text', ['{"version": 4', '{"version": 4}', '[]', '"x"', '{"version": 4, "prompts": 3}', '\x00\xff'])
def test_damaged_protocol(warm, run_folder, tmp_path, text):
    told(warm('show', spoilt(run_folder, tmp_path, 'protocol.json', text)), 1, str(tmp_path))


def test_another_protocol(warm, pipeline, run_folder, home):
    before = snapshot(run_folder)
    call = ['run', pipeline('ltx'), '--suite', 'ok.txt', '--out', 'good', '--seeds']
    told(warm(*call, 2, *small, '--steps', 2, cwd=home), 1, 'another protocol (settings.steps: 1 → 2)', '--out')
    told(warm(*call, 2, *small, '--margin', 'temporal_flicker=.3', cwd=home), 1, 'margins.temporal_flicker: 0.005 → 0.3')
    told(warm(*call, 2, *small, '--suite', 'tiny', cwd=home), 1, 'holds the suite ok, and tiny has other prompts', '--suite ok.txt+tiny')
    (home/'other').mkdir()
    (home/'other'/'ok.jsonl').write_text('{"text": "a green circle", "id": "a-red-circle-a1e4a280"}')
    told(warm(*call, 2, *small, '--suite', 'other/ok.jsonl', cwd=home), 1, 'prompts.a-red-circle-a1e4a280.text: a red circle → a green circle')
    assert snapshot(run_folder) == before


def test_damaged_part_and_manifest(warm, run_folder, tmp_path):
    part = next((run_folder/'scores').iterdir()).name
    folder = spoilt(run_folder, tmp_path, f'scores/{part}', 'PAR1 and no more')
    told(warm('show', folder), 1, part, 'is damaged')
    (folder/'scores'/part).unlink()
    told(warm('show', folder), 1, part, 'is missing', '--retry damaged')
    for text in ('{', '', '{}', '[]', '{"parts": {}, "replaces": []}'):
        manifest = next((folder/'manifests').iterdir())
        manifest.write_text(text)
        told(warm('show', folder), 1, manifest.name, 'is damaged', '--retry damaged')


def test_the_command_that_an_error_names_mends_the_run(warm, run_folder, tmp_path, home):
    "A clip, a table and a manifest: each is told in one line with a command, and that command brings back the same run."
    import shlex
    from vdb.results import RunFolder
    folder = tmp_path/'run'
    shutil.copytree(run_folder, folder)
    expected = tables(folder), clips(folder)
    def spoil_clip(): next((folder/'videos').iterdir()).unlink()
    def counted(table): return next(folder/p for m in RunFolder(str(folder)).manifests().values() for p in m['parts'] if p.startswith(table))
    def spoil_table(): counted('scores').write_bytes(b'PAR1')
    def spoil_manifest(): next((folder/'manifests').glob('*.json')).write_text('{}')
    def spoil_manifests(): [p.unlink() for p in (folder/'manifests').iterdir()]
    def spoil_by_folder(): (part := counted('scores')).unlink(), part.mkdir()
    def spoil_by_pipe(): (part := counted('generations')).unlink(), os.mkfifo(part)
    for spoil in (spoil_clip, spoil_table, spoil_manifest, spoil_manifests, spoil_by_folder, spoil_by_pipe):
        spoil()
        line = warm('show', folder, cwd=home).err
        assert len(line.splitlines()) == 1 and 'damaged' in line, line
        command = shlex.split(line.strip().rpartition(' again: vdb ')[2])
        done = warm(*command, '--no-report', '--quiet', cwd=home)
        assert done.status == 0, done.err
        assert (tables(folder), clips(folder)) == expected
        assert not warm('show', folder, cwd=home).err


damages = [
    lambda f: f.write_text('{"so'), lambda f: f.write_text('"x"'), lambda f: f.write_bytes(b'\xff\xfe'), lambda f: (f.unlink(), f.mkdir()), lambda f: (f.unlink(), f.symlink_to('/dev/zero')),
    lambda f: f.write_text(hashed(environments=5, source={})), lambda f: f.write_text(hashed(environments=[], source=dict(model=5))), lambda f: f.write_text(hashed(environments=[], source=[1]))]


@pytest.mark.parametrize('spoil', damages)
def test_damaged_environment(warm, pipeline, run_folder, tmp_path, home, spoil):
    "What it says is lost, and nothing else is: the run goes on, is mended by its own call, and has its scores."
    folder = tmp_path/'run'
    shutil.copytree(run_folder, folder)
    expected = tables(folder), clips(folder)
    spoil(folder/'environment.json')
    next((folder/'videos').iterdir()).unlink()
    shown = warm('show', folder)
    assert shown.status == 0 and len(shown.err.splitlines()) == 1 and 'retry damaged' in shown.err
    told(warm('verify', folder), 1, 'environment.json is damaged')
    if spoil is damages[0]: assert warm('report', folder).status == 1
    call = ['run', pipeline('ltx'), '--suite', 'ok.txt', '--seeds', 2, '--out', folder, *small, '--retry', 'damaged']
    if (folder/'environment.json').is_dir(): (folder/'environment.json').rmdir()  # What is no file is not replaced
    done = warm(*call, cwd=home)
    assert done.status == 0, done.err
    assert (tables(folder), clips(folder)) == expected and not warm('show', folder).err
    if spoil is damages[0]: assert warm('report', folder).status == 0


def hashed(**body) -> str:
    from vdb.core import digest
    return json.dumps(body | dict(hash=digest(body)))


def test_words_of_a_received_run_are_one_line(warm, run_folder, tmp_path):
    from vdb.results import RunFolder
    folder = tmp_path/'run'
    shutil.copytree(run_folder, folder)
    RunFolder(str(folder)).write_environment([], dict(model='tiny\n\x1b[31mvdb: x'))
    next((folder/'videos').iterdir()).unlink()
    shown = warm('show', folder).err
    assert len(shown.splitlines()) == 1 and '\x1b' not in shown


def clips(folder): return {p.name: p.read_bytes() for p in (folder/'videos').iterdir()}


def test_missing_clip(warm, run_folder, tmp_path):
    folder = tmp_path/'run'
    shutil.copytree(run_folder, folder)
    for clip in (folder/'videos').iterdir(): clip.unlink()
    told(warm('verify', folder), 1, '.mp4', '--retry damaged')
    shown = warm('show', folder)
    assert '4 of 4 stored clips are damaged' in shown.err and len(shown.err.splitlines()) == 1
    assert '4 ok (4 of their clips damaged)' in shown.out
    assert len(json.loads(warm('show', folder, '--json').out)['damaged']) == 4


def snapshot(folder: Path) -> dict: return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


# Disks

def tables(folder) -> tuple:
    run = opened(folder)
    return run.generations.to_json(), run.scores.to_json(double_precision=15)


def is_mountable(tmp_path) -> bool:
    if os.geteuid() or not shutil.which('mount'): return False
    there = tmp_path/'try'
    there.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', there], capture_output=True)
    if done.returncode == 0: subprocess.run(['umount', there], check=True)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path):
    "A small disk: `disk(size)` makes it, or changes its size."
    if not is_mountable(tmp_path): pytest.skip('a small disk needs root and mount; the next test stands in')
    there, mounted = tmp_path/'disk', []
    there.mkdir()
    def size(text):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', ('remount,' if mounted else '') + f'size={text}', 'tmpfs', there], check=True)
        mounted.append(text)
        return there
    yield size
    subprocess.run(['umount', '-l', there], check=True)


def test_full_disk(warm, pipeline, home, run_folder, disk):
    out = disk('120k')/'run'
    call = ['run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, '--out', out, *small]
    told(warm(*call), 1, 'full', 'make room', 'what is done is kept')
    kept = opened(out).counts
    assert kept['failed'] == kept['skipped'] == 0 and kept['planned'] > 0, 'a full disk is no failure of a generation'
    assert not list(out.rglob('*.part'))
    told(warm(*call), 1, 'full')
    assert opened(out).counts['ok'] >= kept['ok']
    disk('20m')
    assert warm(*call).status == 0
    assert tables(out) == tables(run_folder)


@pytest.mark.parametrize('error, room', [('ENOSPC', 0), ('ENOSPC', 7), ('ENOSPC', 13), ('ENOSPC', 24), ('EDQUOT', 13), ('EIO', 13)])
def test_writes_that_fail(warm, pipeline, home, run_folder, tmp_path, error, room):
    "The same where nothing can be mounted: after `room` writes, every write raises."
    out = tmp_path/'run'
    fault = f'''
import builtins, errno, vdb.files
left = [{room}]
class Full:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, content):
        left[0] -= 1
        if left[0] >= 0: return self.file.write(content)
        self.file.write(content[:len(content)//2])
        raise OSError(errno.{error}, "no more")
vdb.files.open = lambda path, mode='r': Full(builtins.open(path, mode))
'''
    call = ['run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, '--out', out, *small]
    told(warm(*call, setup=fault), 1, 'cannot be written: no more' if error == 'EIO' else 'is full')
    ok = max(0, (room - 5)//6)  # Before the first cell five files are written, for each cell six
    if room: assert opened(out).counts == dict(ok=ok, failed=0, skipped=0, planned=4 - ok)
    assert not list(out.rglob('*.part'))
    assert warm(*call).status == 0
    assert tables(out) == tables(run_folder)


def test_only_clips_do_not_fit(warm, pipeline, home, tmp_path):
    "Rows still fit, and none may say that a generation failed."
    fault = """
import builtins, errno, vdb.files
def full(path, mode='r'):
    if '/videos/' in str(path): raise OSError(errno.ENOSPC, 'no more')
    return builtins.open(path, mode)
vdb.files.open = full
"""
    told(warm('run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, '--out', tmp_path/'run', *small, setup=fault), 1, 'is full')
    assert opened(tmp_path/'run').counts == dict(ok=0, failed=0, skipped=0, planned=4)


def test_file_size_limit(warm, pipeline, home, tmp_path):
    limit = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
measured = sys.modules.get('coverage') and sys.modules['coverage'].Coverage.current()
if measured: measured.save = lambda: None  # its own file would be too large as well
"""
    told(warm('run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, '--out', tmp_path/'run', *small, setup=limit), 1, 'cannot be written')


no_override = '''
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
header, caps = (ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)()
assert libc.capget(header, caps) == 0
caps[0] &= ~0b110  # root may write everywhere by CAP_DAC_OVERRIDE: here it may not
assert libc.capset(header, caps) == 0
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='root writes everywhere; only on Linux it can be kept from it')
def test_no_write_permission(warm, pipeline, home, run_folder, tmp_path):
    closed = tmp_path/'closed'
    shutil.copytree(run_folder, closed/'run')
    (closed/'run'/'protocol.json').unlink()
    before = snapshot(closed)
    for p in (closed, closed/'run'): p.chmod(0o555)
    call = ['run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, *small, '--out']
    try:
        for out in (closed/'new', closed/'run', closed/'deep'/'er'): told(warm(*call, out, setup=no_override), 1, str(out), 'no permission', '--out')
        assert snapshot(closed) == before
    finally:
        for p in (closed, closed/'run'): p.chmod(0o755)


@pytest.mark.skipif(sys.platform != 'linux', reason='as above')
def test_a_complete_run_opens_where_nothing_can_be_written(warm, pipeline, home, run_folder):
    "An archive is read: nothing is written into it, not even that somebody looked."
    folders = [run_folder, *(p for p in run_folder.rglob('*') if p.is_dir())]
    before = snapshot(run_folder)
    for p in folders: p.chmod(0o555)
    try:
        done = warm('run', pipeline('ltx'), '--suite', 'ok.txt', '--seeds', 2, '--out', run_folder, *small, '--json', setup=no_override, cwd=home)
        assert done.status == 0, done.err + done.out
        assert warm('show', run_folder, setup=no_override).status == 0
    finally:
        for p in folders: p.chmod(0o755)
    assert snapshot(run_folder) == before


# Ctrl-C

@pytest.mark.parametrize('as_json', [False, True])
def test_ctrl_c(warm, pipeline, home, run_folder, tmp_path, as_json):
    "Pressed after the second clip: that clip stays, and the same command makes the rest."
    out, log = tmp_path/'run', tmp_path/'log'
    pace = f'''
import time
from vdb.results import RunFolder
plain, n = RunFolder.commit, [0]
def commit(self, *rows, **more):
    plain(self, *rows, **more)
    n[0] += 1
    if n[0] == 2:
        open({str(log)!r}, 'w').close()
        time.sleep(60)
RunFolder.commit = commit
'''
    call = ['run', pipeline('ltx'), '--suite', home/'ok.txt', '--seeds', 2, '--out', out, *small, *(['--json'] if as_json else [])]
    running = warm.start(*call, setup=pace)
    while not log.exists() and not running.ended(): time.sleep(.01)
    running.signal(signal.SIGINT)
    done = running.wait()
    if as_json: assert object_of(done, 130)['error'] == 'Interrupted'
    else: told(done, 130, 'stopped; what is done is kept')
    assert opened(out).counts == dict(ok=2, failed=0, skipped=0, planned=2)
    assert warm(*call).status == 0
    assert tables(out) == tables(run_folder)


# Somebody else's clips

@pytest.fixture(scope='module')
def external(tmp_path_factory):
    "Good clips, and one of each kind that is not."
    from vdb.core import Video
    from vdb.media.write import write_video
    folder, random = tmp_path_factory.mktemp('external')/'clips', np.random.default_rng(0)
    folder.mkdir()
    def clip(name, height=48, width=64): write_video(Video(random.integers(0, 256, (8, height, width, 3), dtype=np.uint8), 8.), folder/name, codec='playable')
    for i in range(3): clip(f'a red circle-{i}.mp4')
    clip('another size-0.mp4', 32, 48)
    clip('truncated-0.mp4')
    whole = (folder/'truncated-0.mp4').read_bytes()
    (folder/'truncated-0.mp4').write_bytes(whole[:len(whole)*2//3])
    (folder/'text-0.mp4').write_text('this is a note, and no video at all\n'*20)
    (folder/'empty-0.mp4').write_bytes(b'')
    frameless(folder/'frameless-0.mp4')
    return folder


def frameless(path: Path):
    "A whole MP4 file with a video track and not one frame."
    import av
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        file.start_encoding()


def test_bad_clips_are_rows(warm, external, tmp_path):
    out = tmp_path/'run'
    call = ['score', external, '--out', out, '--no-report', '--quiet', '--json']
    done = warm(*call)
    assert done.status == 0, done.err
    lines = [x for x in done.err.splitlines() if x.strip()]
    assert len(lines) == 1 and '48x32' in lines[0] and '64x48' in lines[0], 'another size is told, in one line'
    run = opened(out)
    by = {g.prompt: g for g in run.generations.itertuples() if g.seed == 0}
    found = {next(p.text for p in run.protocol.prompts if p.id == k): (g.status, g.reason) for k, g in by.items()}
    assert {k: v[0] for k, v in found.items()} == {'a red circle': 'ok', 'another size': 'ok', 'truncated': 'failed', 'text': 'failed', 'empty': 'failed', 'frameless': 'failed'}
    for name, part in (('truncated', 'is cut off'), ('text', 'is text'), ('empty', 'is empty'), ('frameless', 'has no frames')): assert name in found[name][1], found[name]
    assert 'is text' in found['text'][1] and 'this is a note' not in found['text'][1] and 'is empty' in found['empty'][1]
    assert len(run.generations) == 18 and run.counts['planned'] == 0, 'six prompts by three numbers'
    before = snapshot(out)
    again = warm(*call)
    assert again.status == 0 and json.loads(again.out) == json.loads(done.out)
    assert snapshot(out) == before


@pytest.mark.parametrize('make, parts', [
    (lambda p: None, ['is neither a folder nor a manifest']),
    (lambda p: p.mkdir(), ['has no clips']),
    (lambda p: p.write_text('x'), ['is neither a folder nor a manifest']),
])
def test_external_that_is_none(warm, tmp_path, make, parts):
    make(tmp_path/'clips')
    told(warm('score', 'clips', '--no-report', cwd=tmp_path), 2, *parts)


@pytest.mark.parametrize('name, text, parts', [
    ('m.csv', 'file,prompt\na.mp4,x\n', ['m.csv:2 has no path']), ('m.jsonl', '{"path": "a.mp4"}\n{', ['m.jsonl:2 is not JSON']), ('m.csv', 'path,seed\na.mp4,1.5\n', ["'1.5'"]),
    ('m.csv', 'path,prompt\na.mp4,x\nb.mp4,x\n', ['a.mp4 and b.mp4']), ('m.csv', '', ['has no clips']), ('m.jsonl', '3\n', ['m.jsonl:1 is int']),
])
def test_bad_manifest(warm, tmp_path, name, text, parts):
    (tmp_path/name).write_text(text)
    told(warm('score', name, '--no-report', cwd=tmp_path), 2, *parts)


def test_nothing_could_be_read(warm, tmp_path):
    (tmp_path/'note-0.mp4').write_text('no video')
    done = warm('score', '.', '--out', 'run', '--no-report', '--quiet', cwd=tmp_path)
    assert done.status == 1 and '0 ok, 1 failed' in done.out
    lines = done.err.splitlines()
    assert len(lines) == 1 and 'no clip came of it' in lines[0] and '(1 of 1 cells)' in lines[0]


# Where the answer goes, and Ctrl-C at odd moments

@pytest.mark.skipif(not Path('/dev/full').exists(), reason='/dev/full is a device of Linux')
@pytest.mark.parametrize('argv', [['show', 'good'], ['show', 'good', '--json'], ['--help'], ['show', 'nowhere', '--json']])
def test_standard_output_is_full(run_folder, home, argv):
    script = Path(sys.executable).parent/'vdb'
    with open('/dev/full', 'w') as full: done = subprocess.run([script, *argv], cwd=home, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr == 'vdb: the answer could not be written: No space left on device\n', done.stderr


def test_nobody_reads_the_answer(run_folder, home):
    script = Path(sys.executable).parent/'vdb'
    done = subprocess.run(f'{script} show good | true; exit ${{PIPESTATUS[0]}}', cwd=home, shell=True, executable='/bin/bash', capture_output=True, text=True, timeout=300)
    assert not done.stderr, done.stderr


def test_ctrl_c_while_modules_are_read(home, tmp_path):
    (tmp_path/'sitecustomize.py').write_text('''
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
''')
    done = subprocess.run([Path(sys.executable).parent/'vdb', 'show', 'good'], cwd=home, env={**os.environ, 'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 130 and done.stderr == 'vdb: stopped before anything was done\n' and not done.stdout, done.stderr


def test_ctrl_c_while_the_report_is_written(warm, run_folder, tmp_path):
    "The report of before stays, and no kernel is left behind."
    folder, log = tmp_path/'run', tmp_path/'log'
    shutil.copytree(run_folder, folder)
    assert warm('report', folder).status == 0
    before = snapshot(folder)
    tell = f'''
from papermill.engines import NotebookExecutionManager
plain = NotebookExecutionManager.cell_start
def begun(self, *rest, **more):
    open({str(log)!r}, 'w').close()
    return plain(self, *rest, **more)
NotebookExecutionManager.cell_start = begun
'''
    running = warm.start('report', folder, setup=tell)
    while not log.exists() and not running.ended(): time.sleep(.01)
    running.signal(signal.SIGINT)
    told(running.wait(), 130, 'stopped; what is done is kept')
    assert snapshot(folder) == before


def test_ctrl_c_before_a_cell_of_the_report_is_sent(warm, run_folder, tmp_path):
    "The narrowest moment: the call that would run the cell exists, and is never waited for."
    shutil.copytree(run_folder, tmp_path/'run')
    tell = """
import jupyter_core.utils as utils
from papermill.engines import NotebookExecutionManager
plain, loop, begun = NotebookExecutionManager.cell_start, utils.ensure_event_loop, []
def start(self, *rest, **more):
    begun.append(1)
    return plain(self, *rest, **more)
def interrupted(*rest):
    if not begun: return loop(*rest)
    begun.clear()
    raise KeyboardInterrupt
NotebookExecutionManager.cell_start, utils.ensure_event_loop = start, interrupted
"""
    told(warm('report', tmp_path/'run', setup=tell), 130, 'stopped; what is done is kept')


def test_a_measurement_is_not_lost_for_want_of_a_folder(warm, home, tmp_path):
    (tmp_path/'one-bench.json').write_text('[1, 2]')
    told(warm('bench', '--against', tmp_path, '--quiet'), 2, 'one-bench.json is not a result: it holds list')
    for text in ('{"date": 1, "kind": "a", "workload": "b", "figures": {}}', '{"date": "1", "kind": "a", "workload": "b", "figures": {"x": 3}}', '{"figures": {}}', '{'):
        (tmp_path/'one-bench.json').write_text(text)
        told(warm('bench', '--against', tmp_path, '--quiet'), 2, 'one-bench.json is not')
    told(warm('bench', '--save', home/'file'/'x', '--quiet'), 1, str(home/'file'))
