"Every notebook of the library runs top to bottom, and every paper with its defaults: each in a process of its own."
import os
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
cells = os.environ.get('VDB_CELLS', '').split()  # 'slow' or 'gpu': run such cells too, and only the notebooks that have them
notebooks = [p for p in sorted((root/'nbs').rglob('*.ipynb')) if not any(part.startswith(('.', '_')) for part in p.relative_to(root).parts)]
if cells: notebooks = [p for p in notebooks if any(f'#| {flag}' in p.read_text(encoding='utf-8') for flag in cells)]
papers = [] if cells else sorted((root/'papers').glob('*.ipynb'))


FRESH = {'13_models.pipelines'}  # It is about how others are imported


@pytest.fixture(scope='session')
def forks(tmp_path_factory):
    "A parent that has imported torch and the like once, and forks a process for each notebook. None where that is not safe, or not wanted."
    if cells or sys.platform != 'linux':
        yield None
        return
    from warm import Warm
    made = Warm(tmp_path_factory.mktemp('notebooks'), [root/'tests'/'run_notebook.py', '--forks'])
    yield made
    made.close()


@pytest.mark.parametrize('notebook', notebooks, ids=lambda p: p.stem)
def test_notebook_runs(notebook, forks):
    if forks and notebook.stem not in FRESH:
        done = forks.fork(notebook=str(notebook), cells=cells).wait()
        assert done.status == 0, f'{notebook.name} failed:\n{done.out[-6000:]}'
        return
    done = subprocess.run([sys.executable, root/'tests'/'run_notebook.py', notebook, *cells], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    assert done.returncode == 0, f'{notebook.name} failed:\n{done.stdout[-6000:]}'


@pytest.mark.parametrize('paper', papers, ids=lambda p: p.stem)
def test_paper_runs_with_its_defaults(paper, tmp_path):
    import papermill
    kept = paper.read_bytes()
    papermill.execute_notebook(str(paper), str(tmp_path/'executed.ipynb'), cwd=str(tmp_path), kernel_name='python3', progress_bar=False)
    assert paper.read_bytes() == kept
