"`vdb batch --engine ray` on a real cluster: a head and four nodes with declared GPUs, of which machines, processes, kernels and drivers are killed."
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import fsspec
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from stores import store
from test_bad_input import disk
from test_batch import events, gone

pytestmark = pytest.mark.timeout(600)

# Each attempt says in a file of its own that it has begun, where, and that it has come to its end.
code = """
import os, signal, time
os.makedirs(out, exist_ok=True)
with open(f'{out}/seen', 'a') as file: file.write('x')
def tell(word): open(f'{log}/{word}.{name}.{os.getpid()}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])
tell('begun')
if how == 'kernel' and not os.path.exists(f'{log}/killed'):
    tell('killed')
    open(f'{log}/killed', 'w').close()
    os.kill(os.getpid(), signal.SIGKILL)
if how == 'fills':  # The disk, until somebody makes room
    while len([n for n in os.listdir(log) if n.startswith('begun')]) < 3: time.sleep(.1)
    try:
        with open(f'{out}/ballast', 'wb') as file:
            while file.write(bytes(4096)): file.flush()
    except OSError: tell('full')
    while not os.path.exists(f'{log}/room'): time.sleep(.1)
if how == 'bad' and os.environ.get('BAD_NODE'): os.kill(os.getpid(), signal.SIGKILL)
if how == 'raises': raise ValueError('no such dog')
time.sleep(1000 if how == 'hangs' and not os.path.exists(f'{log}/go') else seconds)
tell('ended')
"""


def notebook(path: Path) -> Path:
    cells = [new_code_cell("name: str = 'a'\nhow = 'works'\nseconds: float = 0\nlog = ''\nout = 'out'", metadata=dict(tags=['parameters'])), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), path)
    return path


# Holds a node until it is told to leave.
another_job = """
import os, sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Only
address, node, held, leave = sys.argv[1:]
ray.init(address, logging_level='ERROR', log_to_driver=False)
@ray.remote(num_cpus=2, num_gpus=1)
def hold():
    open(held, 'w').close()
    while not os.path.exists(leave): time.sleep(.1)
ray.get(hold.options(scheduling_strategy=Only(node, soft=False)).remote())
"""


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    "A store that the cluster's machines reach, for it is begun after it."
    with store('s3', tmp_path) as made:
        made.environment['AWS_MAX_ATTEMPTS'] = '1'
        for name, value in made.environment.items(): monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    "A head without processors, and four nodes with two GPUs each: a large one, a small one, one that is bad, and one that has another vdb."
    pytest.importorskip('ray', reason='Ray is an extra: pip install vdb[ray]')
    from ray.cluster_utils import Cluster
    for name in [n for n in os.environ if n.startswith('COVERAGE_')]: monkeypatch.delenv(name)  # Ray's own processes would be measured, and take too long to begin
    made = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0))
    def add(gpu, vram_gb): return made.add_node(num_cpus=2, num_gpus=2, memory=4e9, object_store_memory=80_000_000, wait=False, resources=dict(vram_gb=2*vram_gb), labels=dict(gpu=gpu))
    made.nodes = [add('h100', 80), add('l4', 24)]
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv('BAD_NODE', 'yes')
        made.nodes.append(add('h200', 141))
    other = tmp_path/'other'/'vdb-9.9.dist-info'
    other.mkdir(parents=True)
    (other/'METADATA').write_text('Metadata-Version: 2.1\nName: vdb\nVersion: 9.9\n')
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv('PYTHONPATH', str(other.parent), prepend=os.pathsep)
        add('h100', 80)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def night(cluster, tmp_path):
    "The arguments that begin a batch, and the folder where its notebooks say what they do."
    log = tmp_path/'log'
    log.mkdir()
    def begin(rows, seconds=0., out=tmp_path/'night', rules=()):
        grid = dict(include=[dict(name=name, how=how, seconds=seconds, log=str(log)) for name, how in rows.items()], rules=list(rules))
        (tmp_path/'grid.yaml').write_text(json.dumps(grid))  # JSON is YAML
        return ['batch', notebook(tmp_path/'wait.ipynb'), '--grid', tmp_path/'grid.yaml', '--out', out, '--quiet', '--engine', 'ray', '--address', cluster.address]
    return begin, log, tmp_path/'night'


def wait_for(log: Path, count: int, process, pattern: str = 'begun.*') -> list[str]:
    deadline = time.monotonic() + 120
    while len(found := sorted(p.name for p in log.glob(pattern))) < count:
        if time.monotonic() > deadline: process.signal(9)
        assert not process.ended(), (found, process.wait())
        time.sleep(.05)
    return found


def family(pid: int) -> list[psutil.Process]:
    "A process and all below it."
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def kill(processes) -> None:
    for p in processes:
        try: p.kill()
        except psutil.NoSuchProcess: pass


def raylet(node) -> int: return node.all_processes['raylet'][0].process.pid


def check_once(folder: Path, rows: dict) -> dict:
    "Every task is published once or has failed with its reason; what the ledger holds, by name."
    told, told_of = events(folder), json.loads((folder/'batch.json').read_text())['tasks']
    names = {task['id']: task['parameters']['name'] for task in told_of}
    published = Counter(names[e['task']] for e in told if e['event'] == 'published')
    assert set(published.values()) <= {1} and {*names.values()} == {*rows}
    return {name: [e['outcome'] for e in told if e['event'] == 'ended' and names[e['task']] == name] + ['published']*published[name] for name in rows}


def test_on_a_cluster(warm, bucket, night, cluster, disk, subtests, tmp_path):
    "One cluster for all of it, since it takes long to begin. What has killed half of it comes last."
    with subtests.test('bad input'): refused(warm, night)
    with subtests.test('places'): places(warm, night, cluster)
    with subtests.test('one run'): one_run(warm, cluster, tmp_path)
    with subtests.test('a full disk'): full_disk(warm, night, disk)
    with subtests.test('a store'): in_a_store(warm, night, bucket)
    with subtests.test('deaths'): deaths(warm, night, cluster)


def refused(warm, night):
    "One line before anything starts, and nothing is begun."
    begin, log, folder = night
    with socket.create_server(('127.0.0.1', 0)) as server: nobody = f'127.0.0.1:{server.getsockname()[1]}'
    done = warm(*begin(dict(a='works')), '--address', nobody)
    assert done.status == 2 and len(done.err.splitlines()) == 1 and f'nobody answers at {nobody}' in done.err and not folder.exists()
    done = warm(*begin(dict(a='works'), rules=[dict(resources=dict(gpus=3))]))
    assert done.status == 2 and 'it needs 3 of gpus, and no node has more than 2' in done.err, done
    assert 'has vdb 9.9, and this needs' in done.err and not events(folder)
    shutil.rmtree(folder)
    done = warm(*begin(dict(a='works'), rules=[dict(resources=dict(vram_gb=60, labels=dict(gpu='l4')))]))
    assert done.status == 2 and 'it needs cpus 1, vram_gb 60, gpu=l4 on one node, and no node has all of that' in done.err, done
    shutil.rmtree(folder)


def places(warm, night, cluster):
    "Two share a GPU of the small node, once another job of the cluster has left it, one goes where its label wants it, and three who die in a row close the node where they did."
    begin, log, folder = night
    large, small, bad = (n.node_id for n in cluster.nodes)
    rules = [dict(match=dict(how='bad'), resources=dict(gpus=1, cpus=1, labels=dict(gpu=['h200', 'h100']))), *(dict(match=dict(name=name), priority=9, resources=dict(vram_gb=12, cpus=1, labels=dict(gpu='l4'))) for name in 'st'),
             dict(match=dict(name='w'), priority=8, resources=dict(gpus=2, cpus=2, labels=dict(gpu=['h100', 'l4'])))]
    rows = dict(s='works', t='works', w='works') | {f'b{i}': 'bad' for i in range(6)}
    other = subprocess.Popen([sys.executable, '-c', another_job, cluster.address, small, str(log/'held'), str(log/'leave')])
    while not (log/'held').exists():
        assert other.poll() is None
        time.sleep(.1)
    started = warm.start(*begin(rows, rules=rules), '--json', '--no-site', '--retries', 3)
    wait_for(log, 3, started, 'begun.[wb]*')
    time.sleep(3)
    early = [e['node'] for e in events(folder) if e['event'] == 'began']
    (log/'leave').touch()
    assert other.wait() == 0
    done = started.wait()
    told = events(folder)
    shutil.rmtree(folder)
    seen = {p.name.split('.')[1]: p.read_text() for p in log.glob('ended.*')}
    for p in log.iterdir(): p.unlink()
    assert done.status == 0, done
    names = {x['id']: x['parameters']['name'] for x in json.loads(done.out)['tasks']}
    began = [(names[e['task']], e['node']) for e in told if e['event'] == 'began']
    assert small not in early and len(early) >= 3
    assert {node for name, node in began if name in 'st'} == {small} and seen['s'] == seen['t'] == '0'
    assert {node for name, node in began if name == 'w'} == {large} and seen['w'] == '0,1'
    died = [names[e['task']] for e in told if e.get('outcome') == 'kernel_died']
    assert 3 <= len(died) <= 4 and len({*died}) == len(died) and '3 tasks in a row came to grief on node' in done.err, done
    assert {node for name, node in began if name in died} == {bad, large}


def one_run(warm, cluster, tmp_path):
    "A run that several nodes make is the one that a process makes."
    small = ['run', 'tiny', '--frames', 5, '--height', 32, '--width', 32, '--steps', 2, '--threads', 1, '--device', 'cpu', '--seeds', 1, '--metric', 'temporal_flicker', '--no-report', '--quiet', '--out']
    done = warm(*small, tmp_path/'many', '--engine', 'ray', '--address', cluster.address, '--processes', 2)
    assert done.status == 0 and warm(*small, tmp_path/'one').status == 0, done
    from vdb.runs import open_run
    many, one = open_run(str(tmp_path/'many')), open_run(str(tmp_path/'one'))
    assert many.complete and many.generations.sha256.tolist() == one.generations.sha256.tolist() and many.scores.value.tolist() == one.scores.value.tolist()
    assert not (tmp_path/'many'/'shards').exists()


def full_disk(warm, night, disk):
    "Attempts and their driver go on when there is room again."
    begin, log, _ = night
    folder = disk('1m')/'night'
    started = warm.start(*begin(dict(f='fills', a='works', b='works'), 3., folder), '--no-site', '--retries', 9)
    wait_for(log, 1, started, 'full.*')
    wait_for(log, 2, started, 'ended.[ab].*')
    time.sleep(2)
    assert not started.ended() and 'published' not in [e['event'] for e in events(folder)]  # A page may get free, and an accident be told
    disk('20m')
    (log/'room').touch()
    done = started.wait()
    assert done.status == 0, done
    assert all(outcomes[-1] == 'published' for outcomes in check_once(folder, 'fab').values())
    for p in log.iterdir(): p.unlink()


def in_a_store(warm, night, bucket):
    "It is out for a while, and a kernel is killed: what was made is there, each once, and no machine has anything left."
    begin, log, _ = night
    started = warm.start(*begin(dict(k='kernel', a='works', b='works', c='works'), 4., f'{bucket.url}/night'), '--json', env=bucket.environment)
    wait_for(log, 3, started)
    bucket.proxy.down = True
    time.sleep(6)
    bucket.proxy.heal()
    done = started.wait()
    found = json.loads(done.out)
    assert (done.status, found['done']) == (0, 4) and found['site'] == f'{bucket.url}/night/site/index.html', done
    fs = fsspec.url_to_fs(bucket.url, use_listings_cache=False)[0]
    told = [json.loads(c) for c in fs.cat(fs.glob('lab/night/ledger/*.json')).values()]
    assert Counter(e['event'] for e in told)['published'] == 4 and 'kernel_died' in [e.get('outcome') for e in told]
    seen = {x['parameters']['name']: fs.cat_file(f'lab/night/{x["folder"]}/out/seen') for x in found['tasks']}
    assert seen['k'] == b'xx' and not [p for e in told if 'mark' in e and os.path.exists(p := f'{tempfile.gettempdir()}/vdb-{e["mark"]}')]
    for p in log.iterdir(): p.unlink()


def deaths(warm, night, cluster):
    "The driver, a machine, a raylet, a worker and a kernel are killed, a cell hangs, and another raises."
    begin, log, folder = night
    rows = dict(h='hangs', k='kernel', r='raises') | {f'w{i}': 'works' for i in range(6)}
    first = warm.start(*begin(rows, 9.), '--deadline', 30, '--retries', 3)
    wait_for(log, 4, first)
    first.kill_after(0)
    assert gone(folder, 20)
    for p in log.iterdir(): p.unlink()
    second = warm.start('batch', 'resume', folder, '--engine', 'ray', '--address', cluster.address, '--json', '--quiet')
    while 'kernel_died' not in [e.get('outcome') for e in events(folder)]: time.sleep(.05)
    hanging = int(wait_for(log, 1, second, 'begun.h.*')[0].rpartition('.')[2])
    wait_for(log, 5, second)
    def watching(node): return [p for p in family(raylet(node)) if ' '.join(p.cmdline()).startswith('ray::attempts/')]
    nodes = [n for n in cluster.nodes if hanging not in [p.pid for p in family(raylet(n))]]
    machine, alone = sorted(nodes, key=lambda n: -len(watching(n)))
    (other,) = {*cluster.nodes} - {*nodes}
    kill([p for p in watching(other) if hanging not in [c.pid for c in p.children(recursive=True)]])
    kill(family(raylet(machine)))  # As if its power was cut
    kill([psutil.Process(raylet(alone))])  # What it had started may come to its end
    done = second.wait()
    found, ended = json.loads(done.out), check_once(folder, rows)
    assert (found['done'], found['failed'], done.status) == (7, 2, 1), (done, ended)
    assert all(ended[name][-1] == 'published' for name in rows if name[0] in 'wk')
    assert 'kernel_died' in ended['k'] and 'error' in ended['r'] and 'deadline' in ended['h'], ended
    assert {'lost', 'node_lost'} & {o for outcomes in ended.values() for o in outcomes}, ended  # Of what was killed before its first heartbeat, nobody says more than that it was interrupted
    reasons = {x['parameters']['name']: x['reason'] for x in found['tasks']}
    assert 'no such dog' in reasons['r'] and 'not done after' in reasons['h']
    assert gone(folder, 0)
    assert {p.read_text() for p in log.glob('begun.*')} <= {'0', '1'}  # One GPU each
