"What `make` would do, read from `make -n`: nothing is installed here."
import os
import subprocess
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]


def dry(tmp_path, target, *settings, path=''):
    "What a first call would run, in an environment that is not there yet."
    env = {k: v for k, v in os.environ.items() if k not in ('VDB_TORCH', 'TORCH_INDEX', 'MAKEFLAGS', 'MFLAGS', 'MAKELEVEL')}
    env['PATH'] = f'{path}:{env["PATH"]}' if path else env['PATH']
    return subprocess.run(['make', '-n', target, f'VENV={tmp_path}/venv', *settings], cwd=root, env=env, capture_output=True, text=True)


def torch_lines(done):
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.split('\n') if 'install' in line and 'torch=' in line]


def fake_nvidia_smi(folder, prints):
    folder.mkdir()
    (folder/'nvidia-smi').write_text(f'#!/bin/sh\necho "{prints}"\n')
    (folder/'nvidia-smi').chmod(0o755)
    return folder


@pytest.mark.parametrize('prints, build', [('GPU 0: NVIDIA H100 (UUID: GPU-1)', 'cuda'), ('No devices were found', 'cpu')])
def test_the_build_of_torch_follows_the_gpu(tmp_path, prints, build):
    lines = torch_lines(dry(tmp_path, 'demo', path=fake_nvidia_smi(tmp_path/'bin', prints)))
    assert ('+cpu' in lines[0]) == (build == 'cpu') and ('torch===' in lines[0]) == (build == 'cuda'), lines


def test_the_build_of_torch_can_be_decided_by_hand(tmp_path):
    gpu = fake_nvidia_smi(tmp_path/'bin', 'GPU 0: NVIDIA H100 (UUID: GPU-1)')
    assert '+cpu' in torch_lines(dry(tmp_path, 'demo', 'VDB_TORCH=cpu', path=gpu))[0]
    assert 'torch===' in torch_lines(dry(tmp_path, 'demo', 'VDB_TORCH=cuda'))[0]
    assert '--extra-index-url https://example.org/cpu torch==' in torch_lines(dry(tmp_path, 'demo', 'VDB_TORCH=cpu', 'TORCH_INDEX=https://example.org/cpu'))[0]
    wrong = dry(tmp_path, 'demo', 'VDB_TORCH=rocm')
    assert wrong.returncode and 'expected auto, cpu or cuda' in wrong.stderr


def test_torchvision_never_brings_another_torch(tmp_path):
    lines = [line for line in dry(tmp_path, 'test').stdout.split('\n') if 'install' in line and 'torchvision==' in line]
    assert lines and all('--no-deps' in line for line in lines)


def test_a_second_call_installs_nothing(tmp_path):
    venv = tmp_path/'venv'
    venv.mkdir()
    for stamp in ('.venv-made', '.torch-cpu', '.base-cpu', '.dev-cpu'): (venv/stamp).touch()
    for target in ('demo', 'test'): assert '-m pip' not in dry(tmp_path, target, 'VDB_TORCH=cpu').stdout


def test_an_old_python_is_refused_in_a_sentence(tmp_path):
    (tmp_path/'old').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path/'old').chmod(0o755)
    done = subprocess.run(['make', f'{tmp_path}/venv/.venv-made', f'VENV={tmp_path}/venv', f'PYTHON={tmp_path}/old'], cwd=root, capture_output=True, text=True)
    assert done.returncode and 'needs Python 3.11 or newer' in done.stderr


def test_what_ci_runs_is_make_test():
    assert 'make test' in (root/'.ci'/'run').read_text() and os.access(root/'.ci'/'run', os.X_OK)
