"""The pages. `python tests/make_site.py _docs` stages the notebooks with nbdev and renders the site; `--front` writes README.md and the
sidebar; `--stage` only stages, for Quarto (`quarto render _proc`).

The site is rendered from a scratch copy. The published one is made by Quarto from the same `_quarto.yml`; this is the check that needs nothing else."""
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parents[1]


def pages(nbs: Path = root/'nbs') -> list[Path]:
    "The notebooks that become pages, relative to `nbs`."
    found = (p.relative_to(nbs) for p in sorted(nbs.rglob('*.ipynb')))
    return [p for p in found if not any(part.startswith(('.', '_')) for part in p.parts)]


def stage() -> None:
    """What nbdev does before a site is rendered: `nbs/` with signatures, links and directives applied, as `_proc/`, in the current folder.

    nbdev runs exported cells, for their signatures, and every cell that has an import anywhere. A test that imports something would then run
    without the cells before it, so of the others only cells that are nothing but imports are run."""
    import ast
    from fastcore import docments
    from nbdev import processors
    from nbdev.serve import proc_nbs
    run_before = processors._do_eval
    def run_now(cell):
        if not run_before(cell): return False
        trees = cell.parsed_()
        return bool(cell.directives_.keys() & {'export', 'exports', 'exporti', 'exec_doc'} or processors._show_docs(trees)
                    or all(isinstance(tree, (ast.Import, ast.ImportFrom)) for tree in trees))
    processors._do_eval = run_now
    signature = docments.signature
    def as_written(sym, eval_str=True, **how):
        "A quoted annotation may name a library that its module imports only inside a function: it is shown as it stands."
        try: return signature(sym, eval_str=eval_str, **how)
        except NameError: return signature(sym, eval_str=False, **how)
    docments.signature = as_written
    proc_nbs(n_workers=0)  # in this process, where that rule is


def render(out: Path) -> Path:
    "Every notebook as a page under `out`. Import cells and signatures are run on the way."
    with tempfile.TemporaryDirectory() as scratch:
        skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '*.safetensors')
        for name in ('nbs', 'vdb'): shutil.copytree(root/name, f'{scratch}/{name}', ignore=skip, symlinks=True)
        for name in ('settings.ini', '_quarto.yml', 'README.md'): shutil.copy(root/name, scratch)
        tools = Path(sys.executable).parent
        env = dict(os.environ, PYTHONPATH=scratch, PYTHONWARNINGS='ignore')
        for command in ([sys.executable, Path(__file__).resolve(), '--stage'], [tools/'smalldocs', 'render', '_proc']):
            done = subprocess.run(command, cwd=scratch, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode: sys.exit(f'{command[-2:]} failed:\n{done.stdout[:3000]}\n...\n{done.stdout[-3000:]}')
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(f'{scratch}/_proc/_docs', out)
    return out


def readme(notebook: Path = root/'nbs'/'index.ipynb') -> str:
    "The front page as Markdown: hidden cells left out, code in fences with what it printed below."
    parts = []
    for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': parts.append(source); continue
        if re.search(r'^#\| *hide\b', source, re.M): continue
        code = '\n'.join(line for line in source.split('\n') if not line.startswith('#|')).strip()
        shown = [''.join(o.get('text') or o.get('data', {}).get('text/plain', '')) for o in cell['outputs']]
        parts += [f'```python\n{code}\n```', *(f'```\n{text.rstrip()}\n```' for text in shown if text.strip())]
    return '<!-- made from nbs/index.ipynb by `make readme` -->\n\n' + '\n\n'.join(p.strip('\n') for p in parts if p.strip()) + '\n'


floors = (('Ground', 0), ('Subjects', 10), ('Instruments', 30), ('Protocols', 50), ('Pages', 65), ('Scale and trust', 70), ('Faces', 85))  # Name, first number


def sidebar() -> str:
    "The contents of the sidebar in `_quarto.yml`: the front page, tutorials, then the library floor by floor."
    sections = {'Tutorials': [], **{name: [] for name, _ in floors}}
    for page in pages():
        if page.parts[0] == 'tutorials': sections['Tutorials'].append(page)
        elif m := re.match(r'\d\d[a-z]?_', page.name): sections[[name for name, first in floors if first <= int(m[0][:2])][-1]].append(page)
    lines = ['      - index.ipynb']
    for name, found in sections.items():
        if found: lines += [f'      - section: {name}', '        contents:', *(f'          - {p.as_posix()}' for p in found)]
    return '\n'.join(lines) + '\n'


def quarto() -> str:
    "`_quarto.yml` with the sidebar as it should be."
    before, after = re.match(r'(.*?\n    contents:\n).*?(\n\S.*)$', (root/'_quarto.yml').read_text(encoding='utf-8'), re.S).groups()
    return before + sidebar() + after


if __name__ == '__main__':
    if sys.argv[1] == '--stage':
        stage()
        gc.freeze()  # at its end each of the shells, one a notebook, looks through all that there is: half a minute
    elif sys.argv[1] == '--front':
        (root/'README.md').write_text(readme(), encoding='utf-8')
        (root/'_quarto.yml').write_text(quarto(), encoding='utf-8')
    else: print(render(Path(sys.argv[1]).resolve())/'index.html')
