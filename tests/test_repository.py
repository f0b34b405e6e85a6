"What keeps the repository whole: notebooks and library agree, floors hold, imports stay cheap, pages are complete."
import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import make_site

root = Path(__file__).resolve().parents[1]
library = sorted((root/'nbs').glob('[0-9]*.ipynb'))  # The notebooks that export
papers = sorted((root/'papers').glob('*.ipynb'))
pages = [root/'nbs'/p for p in make_site.pages()]
modules = sorted(p for p in (root/'vdb').rglob('*.py') if p.name != '_modidx.py')
each = pytest.mark.parametrize
stem = dict(ids=lambda p: p.stem)


def cells(notebook): return json.loads(notebook.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def exports(notebook): return [c for c in cells(notebook) if c['cell_type'] == 'code' and re.search(r'^#\| *export', source(c), re.M)]


# Notebooks and library

def test_library_is_what_the_notebooks_export_and_they_are_clean():
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    done = subprocess.run(['bash', root/'tests'/'check_sync.sh'], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@each('notebook', [*pages, *papers], **stem)
def test_cell_ids_are_there_and_differ(notebook):
    ids = Counter(c.get('id') for c in cells(notebook))
    assert None not in ids, 'a cell without an id: an unresolved merge?'
    assert max(ids.values()) == 1, [i for i, n in ids.items() if n > 1]


@each('notebook', library, **stem)
def test_notebook_is_named_after_its_module(notebook):
    names = [m[1] for c in cells(notebook) if (m := re.search(r'^#\| *default_exp +(\S+)', source(c), re.M))]
    assert names == [re.sub(r'^\d\d[a-z]?_', '', notebook.stem)]


def definitions(tree): return [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


def is_companion(node):
    "A private function of three lines or fewer may stand beside the definition that it serves."
    return node.name.startswith('_') and not isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno < 3


@each('notebook', library, **stem)
def test_exported_cells_are_explicit_and_short(notebook):
    for cell in exports(notebook):
        text = source(cell)
        lines = [x for x in text.split('\n') if x.strip() and not x.startswith('#|')]
        most = 120 if any(x.startswith('class ') for x in lines) else 60
        assert len(lines) <= most, f'{cell["id"]} has {len(lines)} lines: 25 is the aim, 60 the limit, 120 that of a class'
        assert not re.search(r'^\s*from\s+\S+\s+import\s+\*', text, re.M), f'{cell["id"]} imports *'
        long = [x for x in text.split('\n') if len(x) > 110]
        assert not long, f'{cell["id"]} has lines of more than 110 characters: {long}'
        several = [n.name for n in definitions(ast.parse(text)) if not is_companion(n)]
        assert len(several) <= 1, f'{cell["id"]} defines {several}: one definition a cell'


def test_lines_of_the_library_are_short():
    "All of it but the lists of names that nbdev writes."
    for file in modules:
        text = re.sub(r'^__all__ = \[.*?\]$', '', file.read_text(encoding='utf-8'), flags=re.M | re.S)
        assert not (long := [x for x in text.split('\n') if len(x) > 110]), (file.name, long)


def not_annotated(node, method):
    "Parameters without a type, and 'return'."
    static = any(getattr(d, 'id', '') == 'staticmethod' for d in node.decorator_list)
    given = [*node.args.posonlyargs, *node.args.args][int(method and not static):]
    given += [*node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
    return [a.arg for a in given if a.annotation is None] + ([] if node.returns else ['return'])


@each('notebook', library, **stem)
def test_public_functions_are_annotated(notebook):
    wrong = []
    for cell in exports(notebook):
        for node in definitions(ast.parse(source(cell))):
            if node.name.startswith('_'): continue
            inner = definitions(node) if isinstance(node, ast.ClassDef) else [node]
            for f in inner:
                public = f.name == '__init__' or not f.name.startswith('_')
                if public and not isinstance(f, ast.ClassDef) and (lack := not_annotated(f, f is not node)): wrong.append(f'{cell["id"]}: {node.name}.{f.name} lacks {lack}')
    assert not wrong, '\n'.join(wrong)


@each('notebook', library, **stem)
def test_constants_are_upper_case(notebook):
    "What never changes: a number, a text, a tuple, a table of them. A list or an annotated name may be filled later."
    wrong = []
    for cell in exports(notebook):
        for node in ast.parse(source(cell)).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.Tuple, ast.Dict)):
                wrong += [t.id for t in node.targets if isinstance(t, ast.Name) and t.id != t.id.upper()]
    assert not wrong


@each('notebook', library, **stem)
def test_notebook_is_an_article(notebook):
    prose = [c for c in cells(notebook) if c['cell_type'] == 'markdown']
    title = source(prose[0]) if prose else ''
    assert re.match(r'# .+\n+> .+', title), 'the first prose cell is a title and a subtitle: "# Title" and "> One sentence."'
    assert 3*len(prose) >= len(exports(notebook)), f'{len(prose)} cells of prose for {len(exports(notebook))} exported ones'


@each('notebook', [*pages, *papers], **stem)
def test_notebook_is_small_and_tells_nothing_of_its_machine(notebook):
    assert notebook.stat().st_size <= 300_000
    saved = json.dumps([c.get('outputs') for c in cells(notebook)])
    assert not (found := re.findall(r'/(?:home|root|Users|work)/[\w./-]+|/tmp/(?:tmp|ipykernel_|pytest)[\w./-]*', saved)), found


def test_generated_modules_come_from_notebooks():
    "A module that no notebook exports is hand-written: only these are."
    by_hand = {str(p.relative_to(root)) for p in modules if 'AUTOGENERATED! DO NOT EDIT' not in p.read_text(encoding='utf-8')}
    assert {p for p in by_hand if not p.endswith('__init__.py')} == set()


# Floors

floors = ((0, 9), (10, 29), (30, 49), (50, 64), (65, 69), (70, 84), (85, 99))
numbers = {'vdb.' + n.stem.split('_', 1)[1]: int(n.stem[:2]) for n in library}


def floor(number): return next(i for i, (lo, hi) in enumerate(floors) if lo <= number <= hi)


def imported(file):
    "Names of vdb's modules that a file imports anywhere in it, in functions too, with the line."
    name = '.'.join(file.relative_to(root).with_suffix('').parts)
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): targets = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(name.split('.')[:-node.level]) if node.level else ''
            base = '.'.join(filter(None, [base, node.module]))
            targets = [f'{base}.{a.name}' for a in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) == 'import_module' and node.args:
            targets = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        else: continue
        for target in targets:
            if target.split('.')[0] == 'vdb': yield target, node.lineno


def test_no_import_goes_up_a_floor():
    wrong = []
    for file in modules:
        name = '.'.join(file.relative_to(root).with_suffix('').parts)
        if name not in numbers: continue  # the hand-written __init__.py files
        for target, line in imported(file):
            module = next((m for m in (target, target.rpartition('.')[0]) if m in numbers), None)
            if module is None and target in ('vdb.metrics', 'vdb.__version__'): continue  # A package to look through, and a constant
            if module is None: wrong.append(f'{file.name}:{line} imports {target}: name the module that defines it')
            elif floor(numbers[module]) > floor(numbers[name]): wrong.append(f'{file.name}:{line} (floor {floor(numbers[name])}) imports {module} (floor {floor(numbers[module])})')
    assert not wrong, '\n'.join(wrong)


def house():
    "Module -> the modules of vdb that it imports, anywhere in it."
    found = {}
    for file in modules:
        name = '.'.join(file.relative_to(root).with_suffix('').parts)
        if name in numbers: found[name] = {m for target, _ in imported(file) for m in (target, target.rpartition('.')[0]) if m in numbers} - {name}
    return found


def test_no_import_goes_in_a_circle():
    from graphlib import CycleError, TopologicalSorter
    try: TopologicalSorter(house()).prepare()
    except CycleError as error: pytest.fail(' -> '.join(error.args[1]))


def test_readers_import_no_makers():
    "`runs` reads; nothing that it needs, however far below, generates, and no page makes a run."
    graph = house()
    def reached(name, seen): return seen if name in seen else set().union({name}, seen, *(reached(m, seen | {name}) for m in graph[name]))
    makers = {'vdb.bench', 'vdb.cells', 'vdb.external', 'vdb.models.pipelines'}
    for reader in ('vdb.runs', 'vdb.comparison', 'vdb.summaries', 'vdb.notebooks', 'vdb.reports.model', 'vdb.reports.pair'):
        assert not reached(reader, set()) & makers, reader


def test_no_module_has_the_name_of_a_public_function():
    named = {f.name for n in library for c in exports(n) for f in ast.parse(source(c)).body if isinstance(f, ast.FunctionDef)}
    both = named & {m.rpartition('.')[2] for m in numbers}
    assert not both


# Import budgets: by what was loaded, not by milliseconds

heavy = 'torch torchvision diffusers transformers accelerate pandas pyarrow av cv2 scipy matplotlib seaborn papermill nbconvert IPython ipywidgets huggingface_hub requests'.split()


@each('statement', ['import vdb', 'import vdb.cli', 'import vdb.core, vdb.i18n, vdb.text', 'import vdb; dir(vdb)'])
def test_import_loads_nothing_heavy_and_asks_no_network(statement):
    code = f'''
import socket, sys
def refuse(*a, **k): raise RuntimeError('the network was asked for')
socket.socket.connect = socket.getaddrinfo = refuse
{statement}
print(*[m for m in {heavy!r} if m in sys.modules])'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == []


# Packaging

def test_every_requirement_is_pinned():
    from configparser import ConfigParser
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    config = ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    pins = {canonicalize_name(x.split('==')[0]): x.strip().split('==')[1] for x in (root/'constraints.txt').read_text().splitlines() if '==' in x}
    for key, value in config['DEFAULT'].items():
        for r in map(Requirement, value.split()) if key.endswith('requirements') else ():
            assert r.specifier.contains(pins.get(canonicalize_name(r.name), '0')), f'{r} of {key} is not in constraints.txt, or at another version'


def test_what_ships_is_small():
    sizes = {p: p.stat().st_size for p in (root/'vdb'/'data').rglob('*') if p.is_file()}
    assert sum(sizes.values()) <= 30e6, sorted(sizes.items(), key=lambda x: -x[1])[:5]


# Pages

def test_sidebar_lists_every_notebook():
    import yaml
    def walk(entries):
        for e in entries:
            if isinstance(e, str): yield e
            else: yield from walk(e.get('contents', []))
    listed = Counter(walk(yaml.safe_load((root/'_quarto.yml').read_text())['website']['sidebar']['contents']))
    assert listed == Counter(str(p) for p in make_site.pages()), 'run `make readme`'
    assert (root/'_quarto.yml').read_text(encoding='utf-8') == make_site.quarto(), 'run `make readme`'


def test_every_notebook_becomes_a_page(tmp_path):
    out = make_site.render(tmp_path/'site')
    made = {p.relative_to(out).with_suffix('') for p in out.rglob('*.html')}
    assert {p.with_suffix('') for p in make_site.pages()} <= made
    for page in make_site.pages():
        text = (out/page.with_suffix('.html')).read_text(encoding='utf-8')
        title = re.match(r'# (.+)', source(cells(root/'nbs'/page)[0]))[1]
        assert title.split('`')[0].strip() in re.sub(r'<[^>]+>', '', text), f'{page} has lost its title'


def test_readme_is_the_front_page():
    assert (root/'README.md').read_text(encoding='utf-8') == make_site.readme(), 'run `make readme`'


@each('file', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'])
def test_links_within_the_repository_lead_somewhere(file):
    text = (root/file).read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text): assert (root/target).exists(), target
    for target in re.findall(r'`make (\w+)', text): assert re.search(rf'^{target}\b.*:|^nightly gpu:', (root/'Makefile').read_text(), re.M), target


@each('line', [x.split('#')[0].strip() for x in make_site.readme().split('\n') if x.startswith('vdb ')])
def test_commands_of_the_front_page_are_parsed(line):
    import shlex
    import typer
    from vdb.cli import app
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)  # raises for an unknown option or a missing argument


def test_python_of_the_front_page_names_what_exists():
    import vdb
    block = re.search(r'```python\n(.*?)```', make_site.readme(), re.S)[1]
    names = re.findall(r'\bvdb\.(\w+)\(', block)
    assert names and all(callable(getattr(vdb, name)) for name in names)
    ast.parse(block)
