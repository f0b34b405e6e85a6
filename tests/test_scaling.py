"Nodes that come and go: a real autoscaler on this machine, Ray's own check of a cluster file, and a job's script run with stand-ins."
import json
import os
import shlex
import subprocess
import time

import pytest
import yaml
from test_batch import night  # noqa: F401 (a fixture)

from vdb.cluster.scaling import AutoScaling
from vdb.core import InputError

pytest.importorskip('ray', reason='Ray is an extra: pip install vdb[ray]')
pytestmark = pytest.mark.timeout(300)

H100 = dict(name='h100', cpus=64, memory_gb=512, gpus=8, vram_gb=80, labels=dict(gpu='h100'), least=0, most=4)
L4 = dict(name='l4', cpus=16, memory_gb=64, gpus=1, vram_gb=24, labels={'gpu': 'l4', 'example.org/zone': 'lab'}, least=1, most=2)
CPU = dict(name='cpu', cpus=2, memory_gb=.5, most=3)


def scaling(*workers, **more) -> AutoScaling: return AutoScaling.read(dict(workers=list(workers or (H100, L4, CPU)), **more))


def need(cpus=1, memory_gb=0, gpus=0, **more) -> dict: return dict(cpus=cpus, memory_gb=memory_gb, gpus=gpus, **more)


# The wheel lacks the defaults of `fake_multinode`, which is what `AutoscalingCluster` would use: so its class comes in as a provider from outside.
FAKE = dict(cluster_name='fake', max_workers=8, upscaling_speed=1.0, idle_timeout_minutes=.1, auth={}, docker={}, setup_commands=[], initialization_commands=[],
            head_setup_commands=[], worker_setup_commands=[], head_start_ray_commands=[], worker_start_ray_commands=[], file_mounts={}, cluster_synced_files=[],
            file_mounts_sync_continuously=False, rsync_exclude=[], rsync_filter=[], head_node_type='ray.head.default',
            provider=dict(type='external', module='ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider', use_node_id_as_ip=True,
                          disable_node_updaters=True, disable_launch_config_check=True, launch_multiple=True, head_node_id='f'*51 + '00000'))


@pytest.fixture
def begin(monkeypatch):
    "Begins a head without processors, and an autoscaler that begins and ends raylets of this machine."
    import ray
    from ray.cluster_utils import AutoscalingCluster
    for name in [n for n in os.environ if n.startswith('COVERAGE_')]: monkeypatch.delenv(name)  # Ray's own processes would be measured, and take too long to begin
    monkeypatch.setattr(AutoscalingCluster, '_generate_config', lambda self, head, types, autoscaler_v2=False, **more: FAKE | dict(
        available_node_types=types | {'ray.head.default': dict(resources=head, node_config={}, max_workers=0)}) | more)
    monkeypatch.setattr('ray.autoscaler.v2.utils.cached_is_autoscaler_v2', None)  # Of the cluster before, in this process
    made = []
    def cluster(scaling):
        config = yaml.safe_load(scaling.cluster_file())
        types = {k: v for k, v in config['available_node_types'].items() if k != config['head_node_type']}
        for kind in types.values(): del kind['resources']['memory']  # The class hands it on as a custom resource, which Ray refuses
        made.append(AutoscalingCluster(dict(CPU=0), types, autoscaler_v2=True, idle_timeout_minutes=config['idle_timeout_minutes'], max_workers=config['max_workers']))
        made[0].start()
        ray.init('auto', log_to_driver=False, logging_level='ERROR')
        return ray
    yield cluster
    ray.shutdown()
    for c in made: c.shutdown()


def workers_of(ray) -> list[dict]: return [n for n in ray.nodes() if n['Alive'] and n['Resources'].get('CPU')]


def wait_until(reads, wanted, seconds=60.) -> None:
    until = time.monotonic() + seconds
    while (found := reads()) != wanted:
        assert time.monotonic() < until, f'{found} after {seconds} s, expected {wanted}'
        time.sleep(.2)


def test_a_hint_brings_a_node_and_without_it_the_node_goes(begin, warm, night):  # noqa: F811
    "Two kinds have two GPUs; the labels and the memory say that it must be the one that Ray, which adds up, would not choose."
    small = dict(name='small', cpus=2, memory_gb=1, gpus=2, vram_gb=24, labels=dict(gpu='l4'), most=2)
    large = dict(name='large', cpus=4, memory_gb=1, gpus=2, vram_gb=80, labels=dict(gpu='h100'), most=2)
    made = scaling(small, large, idle_s=4, provider=dict(type='fake_multinode'))
    ray = begin(made)
    time.sleep(5)
    assert workers_of(ray) == []
    made.hint([need(vram_gb=60), need(gpus=1, vram_gb=40, labels=dict(gpu=['b200', 'h100']))])
    wait_until(lambda: len(workers_of(ray)), 1)
    (node,) = workers_of(ray)
    assert (node['Resources']['GPU'], node['Resources']['vram_gb'], node['Labels']['gpu']) == (2, 160, 'h100')
    time.sleep(8)  # Twice what it may be idle: the hint holds it, and no second one comes
    assert [n['NodeID'] for n in workers_of(ray)] == [node['NodeID']]
    made.hint([])
    wait_until(lambda: len(workers_of(ray)), 0)
    arguments, log, folder = night  # And a batch, which finds no machine at all
    (folder.parent/'workers.yaml').write_text(yaml.safe_dump(dict(workers=[small, large])))
    address = ray.get_runtime_context().gcs_address
    done = warm(*arguments('ab', rules=[dict(resources=dict(vram_gb=60))]), '--engine', 'ray', '--address', address, '--scaling', folder.parent/'workers.yaml', '--json', '--no-site')
    assert done.status == 0 and json.loads(done.out)['done'] == 2, done
    wait_until(lambda: len(workers_of(ray)), 0)
    huge = warm(*arguments('a', rules=[dict(resources=dict(vram_gb=100))], out='huge'), '--engine', 'ray', '--address', address, '--scaling', folder.parent/'workers.yaml')
    assert huge.status == 2 and 'it needs 100 of vram_gb, and no node has more than 80' in huge.err, huge


def test_ray_takes_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config
    provider, more = dict(type='aws', region='us-west-2'), dict(auth=dict(ssh_user='ubuntu'), setup_commands=['pip install vdb[ray]'], head_node_config=dict(InstanceType='m5.large'))
    told = yaml.safe_load(scaling(H100 | dict(node_config=dict(InstanceType='p5.48xlarge')), L4, CPU, provider=provider, cluster=more, idle_s=90).cluster_file())
    full = prepare_config(told)
    validate_config(full)
    types = full['available_node_types']
    assert types['h100']['resources'] == {'CPU': 64, 'GPU': 8, 'memory': 512_000_000_000, 'vdb-h100': 1, 'vram_gb': 640}
    assert {k: (v['min_workers'], v['max_workers'], v['node_config']) for k, v in types.items()} == {'vdb-head': (0, 0, dict(InstanceType='m5.large')),
        'h100': (0, 4, dict(InstanceType='p5.48xlarge')), 'l4': (1, 2, {}), 'cpu': (0, 3, {})}
    assert (full['max_workers'], full['idle_timeout_minutes'], types['vdb-head']['resources'], types['l4']['labels']) == (9, 1.5, dict(CPU=0), L4['labels'])
    assert full['setup_commands' if 'setup_commands' in full else 'head_setup_commands'] and full['auth']['ssh_user'] == 'ubuntu'
    with pytest.raises(InputError, match='provider is missing: expected type: aws'): scaling().cluster_file()


def test_kuberay_values_are_what_the_autoscaler_reads():
    "The group as the chart writes it, in the hands of the part of Ray that reads it on Kubernetes."
    from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec
    told = yaml.safe_load(scaling(idle_s=.5, image='registry.example.org:5000/lab/vdb:0.1').kuberay_values())
    assert told['image'] == dict(repository='registry.example.org:5000/lab/vdb', tag='0.1') and told['worker'] == dict(disabled=True)
    assert told['head']['rayStartParams'] == {'num-cpus': '0'} and told['head']['enableInTreeAutoscaling'] is True
    assert told['head']['autoscalerOptions'] == dict(version='v2', idleTimeoutSeconds=1)
    groups = told['additionalWorkerGroups']
    assert {k: (g['replicas'], g['minReplicas'], g['maxReplicas']) for k, g in groups.items()} == dict(h100=(0, 0, 4), l4=(1, 1, 2), cpu=(0, 0, 3))
    def read(name):
        g = groups[name]
        spec = dict(groupName=name, rayStartParams=g['rayStartParams'], template=dict(spec=dict(containers=[dict(resources=g['resources'])])))
        return _get_ray_resources_from_group_spec(spec, False)
    assert read('h100') == {'CPU': 64, 'GPU': 8, 'memory': 512_000_000_000, 'vdb-h100': 1, 'vram_gb': 640}
    assert read('cpu') == {'CPU': 2, 'memory': 500_000_000, 'vdb-cpu': 1}
    assert groups['l4']['containerEnv'] == [dict(name='RAY_OVERRIDE_LABELS', value='{"gpu": "l4", "example.org/zone": "lab"}')]
    import ray
    assert yaml.safe_load(scaling().kuberay_values())['image']['tag'].startswith(f'{ray.__version__}-py3')


# Words that a shell would read otherwise.
ODD = ['vdb', 'batch', "model's report.ipynb", '--grid', 'a "b" $(touch harm) `touch harm`; touch harm.yaml', '--out', 'new\nline', '']


@pytest.fixture
def job(tmp_path):
    "Runs a script as Slurm would, with `ray`, `srun` and `vdb` that only write down how they were called, and `python` that answers at once."
    (tmp_path/'bin').mkdir()
    def stand_in(name, code):
        (tmp_path/'bin'/name).write_text(f'#!/bin/bash\n{code}\n')
        (tmp_path/'bin'/name).chmod(0o755)
    write = 'printf "%s\\0" "$0" "$@" > "$CALLS/${0##*/}.$1.$$"'
    stand_in('ray', f'{write}; case "$*" in *--block*) exec sleep 100;; esac')
    stand_in('srun', f'{write}; exec sleep 100')
    stand_in('python', f'{write}; echo 12345')
    stand_in('vdb', f'{write}; {{ trap "exit 7" TERM; echo > "$CALLS/begun"; for i in $(seq ${{WORKS:-1}}); do sleep .1; done; }}; exit ${{ENDS:-0}}')
    (tmp_path/'calls').mkdir()
    def begin(script, **environment):
        env = os.environ | environment | dict(PATH=f'{tmp_path/"bin"}:{os.environ["PATH"]}', CALLS=str(tmp_path/'calls'), SLURM_JOB_NUM_NODES='4')
        (tmp_path/'job.sh').write_text(script)
        return subprocess.Popen(['bash', tmp_path/'job.sh'], env=env, cwd=tmp_path, start_new_session=True)
    def calls(pattern): return [p.read_text().split('\0')[1:-1] for p in (tmp_path/'calls').glob(pattern)]
    begin.calls, begin.path = calls, tmp_path
    return begin


def left(session: int) -> list[str]: return subprocess.run(['ps', '-o', 'args=', '-s', str(session)], capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize('ends', ['0', '3'])
def test_a_job_ends_what_it_began_and_answers_as_the_batch_did(job, ends):
    process = job(scaling().sbatch(ODD, 'l4', '90'), ENDS=ends)
    assert process.wait(30) == int(ends) and left(process.pid) == []
    (vdb,) = job.calls('vdb.*')
    host, _, port = vdb[-1].rpartition(':')
    assert vdb == [*ODD[1:], '--engine', 'ray', '--address', vdb[-1]] and host and port == '12345'
    assert not [*job.path.glob('harm*')]
    (srun,) = job.calls('srun.*')
    assert srun[srun.index('--resources') + 1] == '{"vdb-l4": 1, "vram_gb": 24}' and f'--address={vdb[-1]}' in srun
    assert srun[srun.index('--labels') + 1] == 'gpu=l4,example.org/zone=lab'


def test_a_job_whose_time_is_over_tells_the_batch(job):
    process = job(scaling().sbatch(['vdb', 'batch'], 'cpu'), WORKS='900')
    wait_until(lambda: (job.path/'calls'/'begun').exists(), True)
    process.terminate()
    assert process.wait(30) == 7 and left(process.pid) == []


def test_a_job_asks_for_what_a_worker_is():
    asked = [x.removeprefix('#SBATCH ') for x in scaling().sbatch(['vdb'], 'h100', '2-12:00:00').splitlines() if x.startswith('#SBATCH')]
    assert {*asked} == {'--nodes=4', '--ntasks-per-node=1', '--cpus-per-task=64', '--mem=512000M', '--gpus-per-node=8', '--exclusive', '--time=2-12:00:00', '--signal=B:TERM@60', '--job-name=vdb-h100'}
    assert shlex.join(ODD) in scaling(CPU).sbatch(ODD)  # The only one needs no name
    for more, why in ((dict(), 'the worker is null: expected one of h100, l4, cpu'), (dict(worker='l40'), 'the worker is "l40"'), (dict(worker='l4', time='1 day\n#SBATCH'), 'the time is "1 day')):
        with pytest.raises(InputError, match=why): scaling().sbatch(['vdb'], **more)


@pytest.mark.parametrize('said, why', [
    ({}, 'the dictionary does not say workers'), (dict(workers=[]), r'workers is \[\]: expected a list'), (dict(workers=H100), 'expected a list with one entry'), (dict(workers=['h100']), 'worker 1 is "h100": expected the keys name, cpus'),
    (dict(workers=[H100], idle=3), 'has the key "idle". Did you mean idle_s'), (dict(workers=[H100], idle_s=0), 'idle_s is 0: expected a number above 0'), (dict(workers=[H100], idle_s=True), 'idle_s is true'),
    (dict(workers=[H100], image='vdb'), 'image is "vdb": expected NAME:TAG'), (dict(workers=[H100], image='host:5000/vdb'), 'expected NAME:TAG'),
    (dict(workers=[H100], provider=dict(type='local')), 'provider is .*: expected type: aws'), (dict(workers=[H100], provider='aws'), 'provider is "aws"'), (dict(workers=[H100, H100]), 'h100 stands twice'),
    (dict(workers=[H100 | dict(vram=80)]), 'worker 1 has the key "vram". Did you mean vram_gb'), (dict(workers=[dict(name='a', cpus=1)]), 'worker 1 does not say memory_gb, most'),
    (dict(workers=[H100 | dict(name='H100')]), 'name is "H100": expected a word of a-z'), (dict(workers=[H100 | dict(name='a\n')]), 'name is'), (dict(workers=[H100 | dict(cpus=0)]), 'cpus is 0: expected a whole number of at least 1'),
    (dict(workers=[H100 | dict(cpus=1.5)]), r'cpus is 1.5'), (dict(workers=[H100 | dict(memory_gb='512')]), 'memory_gb is "512": expected a number above 0'), (dict(workers=[H100 | dict(gpus=-1)]), 'gpus is -1'),
    (dict(workers=[H100 | dict(vram_gb=float('nan'))]), 'vram_gb is'), (dict(workers=[H100 | dict(gpus=0)]), '80 GB of memory of a GPU, and no GPU'), (dict(workers=[H100 | dict(least=5)]), 'most is 4: expected at least what least says, 5'),
    (dict(workers=[H100 | dict(most=100_000)]), 'most is 100000: expected a whole number of 0 to 10,000'), (dict(workers=[H100 | dict(labels=['h100'])]), 'labels is .*: expected words by words'),
    (dict(workers=[H100 | dict(labels=dict(gpu=4))]), 'labels is'), (dict(workers=[H100 | dict(labels={'a b': 'c'})]), 'labels is'), (dict(workers=[H100 | dict(labels=dict(a='x,b=y'))]), 'labels is')])
def test_a_mistake_is_told(said, why):
    with pytest.raises(InputError, match=why): AutoScaling.read(said)


@pytest.mark.parametrize('text, why', [('workers: [', 'workers.yaml, line 1: '), ('', 'is null: expected the keys workers'), ('- a', 'expected the keys workers'), ('workers: []\nworkers: []', 'stands twice'), (None, 'workers.yaml cannot be read: .*No such file')])
def test_a_file_is_told_of(tmp_path, text, why):
    if text is not None: (tmp_path/'workers.yaml').write_text(text)
    with pytest.raises(InputError, match=why): AutoScaling.read(tmp_path/'workers.yaml')


def test_nodes_are_those_that_may_come():
    assert [n.id for n in scaling(H100, CPU | dict(most=0)).nodes] == ['h100']
