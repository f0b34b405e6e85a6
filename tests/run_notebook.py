"""Run a notebook top to bottom, as nbdev does: `python tests/run_notebook.py nbs/40_stats.intervals.ipynb [slow|gpu ...]`

Cells flagged in `tst_flags` of settings.ini are left out unless their flag is named. An exported cell is compiled under the file
and the lines where it lies in `vdb/`, so tracebacks point there and coverage counts what the notebook's own tests reach."""
import ast
import gc
import json
import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]


def flags_of(source: str) -> set[str]:
    "The directives of a cell: `#| export`, `#| eval: false` and so on."
    return {d.strip() for d in re.findall(r'^#\|(.*)$', source, re.M)}


def exported_lines(notebook: Path) -> dict[str, tuple[Path, int, str]]:
    "Cell id -> the file it is exported to, the line its text begins on, and that text."
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    name = next((d.split()[1] for c in cells for d in flags_of(''.join(c['source'])) if d.startswith('default_exp')), None)
    if not name: return {}
    file = root/'vdb'/f'{name.replace(".", "/")}.py'
    found, key = {}, None
    for number, line in enumerate(file.read_text(encoding='utf-8').split('\n') if file.exists() else (), 1):
        if m := re.match(r'# %% (\S+\.ipynb|auto) (?:#(\S+))?$', line): key = m[2] if m[1] != 'auto' else None
        elif key:
            where, first, text = found.get(key, (file, number, ''))
            found[key] = (where, first, text + line + '\n')
    return found


def body(source: str) -> list[str]:
    "The lines that export keeps, imports aside: those are rewritten to relative ones."
    return [re.sub(r'^(\s*from )\S+( import .*)$', r'\1…\2', x) for x in source.strip('\n').split('\n') if not x.startswith('#|')]


def make_shell(places: dict):
    "A shell that compiles a cell under its place in the library, where it has one."
    from IPython.core.compilerop import CachingCompiler
    from IPython.core.interactiveshell import InteractiveShell

    class Compiler(CachingCompiler):
        cell_id, shift = None, 0
        def cache(self, transformed_code, number=0, raw_code=None):
            self.shift, place = 0, places.get(self.cell_id)
            if not place or not raw_code: return super().cache(transformed_code, number, raw_code)
            file, first, text = place
            if [x for x in body(text) if x.strip()] != [x for x in body(raw_code) if x.strip()]: return super().cache(transformed_code, number, raw_code)
            begins = [next(i for i, x in enumerate(cell.split('\n')) if x and not x.startswith('#|')) for cell in (text, raw_code)]
            self.shift = first + begins[0] - begins[1] - 1
            return str(file)
        def ast_parse(self, source, filename='<unknown>', symbol='exec'):
            return ast.increment_lineno(super().ast_parse(source, filename, symbol), self.shift)

    InteractiveShell.compiler_class = Compiler
    return InteractiveShell.instance()


def run(notebook: Path, wanted: set[str]) -> int:
    "Exit status: 1 at the first cell that fails."
    config = ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    skip = set(config['DEFAULT']['tst_flags'].split()) - wanted | {'eval: false'}
    os.environ.update(IN_TEST='1', MPLBACKEND=os.environ.get('MPLBACKEND', 'agg'))  # under IN_TEST the last cell exports nothing
    shell = make_shell(exported_lines(notebook))
    os.chdir(notebook.parent)
    sys.path.insert(0, str(notebook.parent))
    for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or flags_of(source) & skip: continue
        shell.compile.cell_id = cell['id']
        result = shell.run_cell(source, store_history=True)
        if not result.success:
            print(f'\n{notebook.name}: the cell {cell["id"]} failed', file=sys.stderr)
            return 1
    return 0


def import_others():
    "What most notebooks import of others; nothing of vdb, so that each notebook imports it itself and coverage counts that."
    os.environ.setdefault('MPLBACKEND', 'agg')
    import importlib
    import torch
    names = ['IPython', 'av', 'cv2', 'fastcore.test', 'matplotlib.pyplot', 'nbdev.showdoc', 'optuna', 'pandas', 'psutil', 'pyarrow.parquet', 'scipy.stats', 'skimage.metrics', 'tqdm.auto', 'transformers']
    for name in names: importlib.import_module(name)
    kept = declare_missing_ops(torch)
    import diffusers
    for name in ('DiffusionPipeline', 'LTXPipeline', 'LTXConditionPipeline', 'AutoencoderKLLTXVideo', 'FlowMatchEulerDiscreteScheduler'): getattr(diffusers, name)
    for name in ('T5EncoderModel', 'PreTrainedTokenizerFast'): getattr(sys.modules['transformers'], name)
    assert not any(name.partition('.')[0] == 'vdb' for name in sys.modules)
    return kept


def declare_missing_ops(torch):
    "As vdb does before it imports diffusers: a torchvision that was compiled for another torch does not load without."
    import importlib.util
    spec = importlib.util.find_spec('torchvision')
    if spec is None: return None
    for library in Path(spec.origin).parent.glob('_C*.so'):
        try: torch.ops.load_library(str(library))
        except OSError: pass
    if hasattr(torch.ops.torchvision, 'nms'): return None
    declared = torch.library.Library('torchvision', 'DEF')
    declared.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    declared.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    return declared  # It undoes its declarations when collected


def parent():
    "Fork a child for each notebook that is asked for. The child ends as a process of its own would, and its two streams are one."
    from warm import own_answers, redirect, serve
    answers = own_answers()
    kept = import_others()
    for asked in serve(answers):
        redirect(asked['stem'])
        os.dup2(1, 2)
        sys.argv = [sys.argv[0], asked['notebook'], *asked['cells']]
        main()


def main():
    status = run(Path(sys.argv[1]).resolve(), set(sys.argv[2:]))
    gc.freeze()  # the shell looks through all that there is when it ends
    sys.exit(status)


if __name__ == '__main__': parent() if sys.argv[1:] == ['--forks'] else main()
