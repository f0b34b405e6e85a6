"""`papers/optimizers.ipynb` in full size: every strategy and its peers, seven problems, 20 seeds. Its figures, as a dated JSON file. `python tests/nightly_optimizers.py --out papers/results`; with `--known FILE` it goes on where it was"""
import sys
import tempfile
from pathlib import Path

from record import options

paper = Path(__file__).resolve().parents[1]/'papers'/'optimizers.ipynb'


def main() -> int:
    import papermill
    ask = options(__doc__, seeds=20, trials=60, known='')
    out = Path(ask.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        size = dict(seeds=ask.seeds, trials=ask.trials, problems=None, kept=ask.known and str(Path(ask.known).resolve()) or None, results=str(out))
        papermill.execute_notebook(str(paper), f'{aside}/optimizers.ipynb', size, cwd=aside, kernel_name='python3', progress_bar=False)
    return 0


if __name__ == '__main__': sys.exit(main())
