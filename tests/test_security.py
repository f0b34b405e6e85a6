"A run's folder, a file's name and what a link leads to may come from a stranger: nothing there is executed, and nothing outside is told."
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

script = Path(sys.executable).parent/'vdb'
planted = 'pandas numpy torch vdb json ipykernel ipykernel_launcher matplotlib sitecustomize usercustomize papermill_translators'.split()


def plant(folder: Path, mark: Path) -> None:
    "Modules that leave a mark when somebody imports them."
    for name in planted: (folder/f'{name}.py').write_text(f'open({str(mark)!r}, "a").write({name!r} + "\\n")\n')


@pytest.fixture(scope='module')
def runs(warm, pipeline, tmp_path_factory):
    home = tmp_path_factory.mktemp('runs')
    (home/'suite.txt').write_text('red\nblue\n')
    for out, steps in (('a', 1), ('b', 2)):
        done = warm('run', pipeline('ltx'), '--suite', 'suite.txt', '--seeds', 2, '--frames', 9, '--height', 32, '--width', 32, '--steps', steps,
                    '--threads', 1, '--no-report', '--quiet', '--out', out, cwd=home)
        assert done.status == 0, done.err
    return home


@pytest.mark.parametrize('argv', [['report', '.'], ['compare', '.', '../b', '--out', '../c']], ids=['report', 'compare'])
def test_modules_in_a_received_folder_are_not_run(runs, tmp_path, argv):
    mark = tmp_path/'mark'
    plant(runs/'a', mark)
    done = subprocess.run([script, *argv], cwd=runs/'a', capture_output=True, text=True, timeout=300)
    for name in planted: (runs/'a'/f'{name}.py').unlink()
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not mark.exists(), mark.read_text()


def test_modules_where_the_command_is_given_are_not_run(runs, tmp_path):
    mark, here = tmp_path/'mark', tmp_path/'here'
    here.mkdir()
    plant(here, mark)
    done = subprocess.run([script, 'report', runs/'b'], cwd=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not mark.exists(), mark.read_text()
    assert sorted(p.name for p in here.iterdir()) == sorted(f'{n}.py' for n in planted), 'the report left something where it was asked for'


def test_a_link_tells_nothing_of_what_it_leads_to(warm, tmp_path):
    from vdb.core import Video
    from vdb.media.write import write_video
    clips, secret = tmp_path/'clips', tmp_path/'secret'
    clips.mkdir()
    secret.write_text('root:x:0:0:a secret that is nobody\'s business\n'*4)
    write_video(Video(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), 8.), clips/'a cat-0.mp4')
    os.symlink(secret, clips/'passwd-0.mp4')
    (tmp_path/'binary').write_bytes(b'\x7fELF-private-bytes'*4)
    os.symlink(tmp_path/'binary', clips/'binary-0.mp4')
    done = warm('score', clips, '--out', tmp_path/'run', '--quiet')
    assert done.status == 0, done.err
    said = done.out + done.err + ''.join((tmp_path/'run'/f).read_text() for f in ('report.html', 'report.ipynb'))
    assert 'passwd' in said and 'is text' in said
    assert 'root:x' not in said and 'secret that' not in said and '7f 45 4c' not in said and 'ELF' not in said


def test_a_comparison_is_never_written_into_a_run(warm, runs):
    before = {p: p.read_bytes() for run in ('a', 'b') for p in (runs/run).rglob('*') if p.is_file()}
    for out in ('a', 'b/', 'a/videos', './b/../a/x'):
        done = warm('compare', 'a/', 'b/', '--out', out, cwd=runs)
        assert done.status == 2 and 'choose another folder' in done.err, (out, done.err)
    done = warm('compare', 'a/', 'b/', cwd=runs)
    assert done.status == 0, done.err
    assert [p.name for p in (runs/'runs').iterdir()] and all(p.name.startswith('compare-') for p in (runs/'runs').iterdir())
    assert {p: p.read_bytes() for run in ('a', 'b') for p in (runs/run).rglob('*') if p.is_file()} == before
