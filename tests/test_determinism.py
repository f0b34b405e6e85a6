"""Same protocol, same machine, same number of threads: the same bytes and the same numbers, in any process and in any order; `vdb verify` sees one changed bit."""
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

small = ['--frames', 9, '--height', 32, '--width', 32, '--steps', 2, '--no-report', '--quiet']


@pytest.fixture(scope='module')
def suite(tmp_path_factory):
    file = tmp_path_factory.mktemp('suite')/'three.txt'
    file.write_text('a red circle\na blue square moves left\nslowly right on black\n')
    return file


@pytest.fixture(scope='module')
def first(warm, pipeline, suite, tmp_path_factory):
    "A run with one thread."
    out = tmp_path_factory.mktemp('first')/'run'
    done = warm('run', pipeline('ltx'), '--suite', suite, '--seeds', '0,1', '--threads', 1, '--out', out, *small)
    assert done.status == 0, done.err
    return out


def opened(path):
    from vdb.runs import open_run
    return open_run(str(path))


def bytes_of(path): return {p.name: p.read_bytes() for p in (path/'videos').iterdir()}


def test_two_processes_make_the_same_bytes(first, pipeline, suite, tmp_path):
    "The second is the installed command in a fresh interpreter that hashes strings in another order."
    command = ['run', pipeline('ltx'), '--suite', suite, '--seeds', '0,1', '--threads', 1, '--out', tmp_path/'again', *small, '--json']
    env = {**os.environ, 'PYTHONHASHSEED': '77', 'HF_HUB_OFFLINE': '1'}
    done = subprocess.run([Path(sys.executable).parent/'vdb', *map(str, command)], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    a, b = opened(first), opened(tmp_path/'again')
    assert json.loads(done.stdout)['fingerprint'] == a.fingerprint == b.fingerprint
    assert bytes_of(first) == bytes_of(tmp_path/'again') and len(bytes_of(first)) == 6
    for table in ('generations', 'scores'): assert_frame_equal(getattr(a, table), getattr(b, table), check_exact=True)
    assert (a.scores['status'] == 'ok').any()


def test_a_cell_does_not_depend_on_those_before_it(warm, pipeline, first, tmp_path):
    "Other seeds around it, prompts in another order: the same seed of the same prompt is the same clip, under the same id."
    other = tmp_path/'other.txt'
    other.write_text('slowly right on black\na green circle\na red circle\n')
    done = warm('run', pipeline('ltx'), '--suite', other, '--seeds', '7,1', '--threads', 1, '--out', tmp_path/'run', *small)
    assert done.status == 0, done.err
    a, b = (opened(p).generations.set_index(['prompt', 'seed']) for p in (first, tmp_path/'run'))
    both = a.index.intersection(b.index)
    assert len(both) == 2
    assert_frame_equal(a.loc[both], b.loc[both], check_exact=True)
    assert a['sha256'].is_unique and b['sha256'].is_unique and a['id'].is_unique


def test_a_machine_with_other_threads_goes_on_with_a_run(warm, pipeline, suite, first, tmp_path):
    "Its cells are marked with what they were made in, and each is verified with as many threads as made it."
    out = tmp_path/'run'
    shutil.copytree(first, out)
    done = warm('run', pipeline('ltx'), '--suite', suite, '--seeds', '0,1,2', '--threads', 2, '--out', out, *small)
    assert done.status == 0, done.err
    run, before = opened(out), opened(first)
    assert run.threads == [1, 2] and run.counts['ok'] == 9
    made = {seed: {run.environment_of(mark)['threads'] for mark in rows} for seed, rows in run.generations.groupby('seed')['environment']}
    assert made == {0: {1}, 1: {1}, 2: {2}}
    assert_frame_equal(run.generations.query('seed < 2').reset_index(drop=True), before.generations, check_exact=True)
    assert '1, 2 CPU threads' in ' '.join(told(run))
    assert warm('verify', out, '--sample', 9).status == 0


def told(run):
    from vdb.reports.model import verdict_sentences
    return verdict_sentences(run)


def test_environment_is_recorded(first):
    [here] = opened(first).environments
    assert here['threads'] == 1 and here['device'] == 'cpu' and here['reasons']['device'] and here['processor']
    assert all(here['versions'][k] for k in ('vdb', 'torch', 'diffusers', 'numpy', 'av'))
    told = (first/'environment.json').read_text()
    assert os.uname().nodename not in told, 'a machine\'s name is nobody\'s business'


def test_verify_passes(warm, first):
    done = warm('verify', first, '--sample', 2, '--json')
    assert done.status == 0, done.err
    assert [c['same'] for c in json.loads(done.out)['clips']] == [True, True]


def test_verify_sees_one_bit_of_one_pixel(warm, first, tmp_path):
    from vdb.media.read import read_video
    from vdb.media.write import encoded
    changed = tmp_path/'run'
    shutil.copytree(first, changed)
    for file in (changed/'videos').iterdir():
        clip = read_video(file)
        clip.frames[3, 5, 7, 1] ^= 1
        file.write_bytes(encoded(clip, '.mp4', 'lossless'))
    done = warm('verify', changed, '--sample', 6, '--json')
    clips = json.loads(done.out)['clips']
    assert done.status == 1 and [(c['same'], c['largest_difference']) for c in clips] == [(False, 1)]*6


def test_verify_sees_other_weights(warm, pipeline, suite, tmp_path):
    from safetensors.numpy import load_file, save_file
    model, out = tmp_path/'model', tmp_path/'run'
    shutil.copytree(pipeline('ltx'), model)
    assert warm('run', model, '--suite', suite, '--seeds', 1, '--threads', 1, '--out', out, *small).status == 0
    assert warm('verify', out, '--sample', 1).status == 0
    file = next((model/'vae').glob('*.safetensors'))
    weights = load_file(file)
    name = next(k for k in weights if k.startswith('decoder') and k.endswith('bias'))
    weights[name] = weights[name] + np.float32(1e-3)
    save_file(weights, file, metadata={'format': 'pt'})
    done = warm('verify', out, '--sample', 1)
    assert done.status == 1 and 'other weights' in done.err
    refused = warm('run', model, '--suite', suite, '--seeds', 1, '--threads', 1, '--out', out, *small)
    assert refused.status == 1 and 'model.weights' in refused.err, 'a run is not continued with other weights'
