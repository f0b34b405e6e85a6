"""The settings of the embedded model, each measured once, as a dated JSON file: a search over them is then replayed in seconds. How much of their prompts the clips show, by the run that every benchmark is; what a clip takes, in rounds in a shuffled order. `python tests/nightly_table.py --out papers/results`, with `--known FOLDER` it goes on where it was"""
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import keep, options

choices = dict(steps=[1, 2, 3, 4, 6, 8, 11, 16], guidance=[1., 2., 3., 4., 6., 8.], shift=[1., 2., 5., 10.], dtype=['float32', 'bfloat16'], threads=[1, 2])
default = 8, 4., 5., 'float32', 2  # What the model does by itself, on two cores
every = 5  # Of the suite's prompts, one seed each: as many clips as a trial of `vdb tune` makes


def known(file: Path) -> dict[str, object]:
    "What was measured before."
    return dict(json.loads(line) for line in file.read_text().splitlines()) if file.exists() else {}


def note(file: Path, key: str, value: object) -> None:
    with file.open('a') as f: f.write(json.dumps([key, value]) + '\n')


def qualities(space, folder: Path) -> dict[str, dict]:
    "Configuration, without its threads -> adherence of each prompt, or why it has none."
    import vdb
    from vdb.core import canonical_json
    from vdb.optimize.objectives import Objective, outcome_of
    from vdb.optimize.tunable import run_options
    from vdb.prompts.suites import load_suite
    file, prompts, found = folder/'qualities.jsonl', load_suite('shapes').prompts[::every], known(folder/'qualities.jsonl')
    for config in space.grid(1):
        key = canonical_json({n: v for n, v in config.items() if n != 'threads'})
        if key in found or config['threads'] > 1: continue
        with tempfile.TemporaryDirectory() as aside:
            o = outcome_of(vdb.run('tiny', prompts, seeds=1, metrics=['adherence'], out=f'{aside}/run', progress=False, **run_options(config)), [Objective('adherence', 'higher')])
        found[key] = dict(adherence=[round(o.by_prompt['adherence'][p.id], 4) for p in prompts]) if o.ok else dict(reason=o.reason)
        note(file, key, found[key])
        print(len(found), key, found[key], flush=True)
    return found


def latencies(space, folder: Path, rounds: int) -> dict[str, list[float]]:
    "Configuration -> seconds of a clip, one a round. The first of each process is not counted."
    from vdb.cells import use_threads
    from vdb.core import GenerationError, Prompt, canonical_json
    from vdb.models.pipelines import load
    from vdb.optimize.tunable import run_options
    file, prompt = folder/'latencies.jsonl', Prompt('a red circle moves right quickly on a black background')
    took, grid = known(file), space.grid(1)
    models = {dtype: load('tiny', dtype=dtype) for dtype in choices['dtype']}
    for model in models.values(): model.generate(prompt, 0, run_options(grid[0])['settings'])
    for n in range(rounds):
        for i in np.random.default_rng(n).permutation(len(grid)):
            config, key = grid[i], f'{n} {canonical_json(grid[i])}'
            if key in took: continue
            use_threads(config['threads'])
            begun = time.perf_counter()
            try: models[config['dtype']].generate(prompt, n, run_options(config)['settings'])
            except GenerationError as error:
                if error.reason != 'black_clip': raise
                print(key, error)  # It was made to its end, so its time counts; what is black too often is a row without values
            took[key] = time.perf_counter() - begun
            note(file, key, took[key])
    return {canonical_json(c): [took[f'{n} {canonical_json(c)}'] for n in range(rounds)] for c in grid}


def main() -> int:
    from vdb.core import canonical_json
    from vdb.optimize.space import Categorical, Ordinal, Space
    ask, began = options(__doc__, rounds=3, known='', only=''), time.perf_counter()
    space = Space({n: (Categorical if n == 'dtype' else Ordinal)(v) for n, v in choices.items()})
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(ask.known or aside)
        folder.mkdir(parents=True, exist_ok=True)
        quality = qualities(space, folder) if ask.only != 'latency' else {}
        took = latencies(space, folder, ask.rounds) if ask.only != 'quality' else {}
    if ask.only: return 0
    rows = [dict(config=c, latencies=[round(x, 5) for x in took[canonical_json(c)]]) | quality[canonical_json({n: v for n, v in c.items() if n != 'threads'})] for c in space.grid(1)]
    keep('table', ask.out, os.cpu_count(), seconds=round(time.perf_counter() - began), model='tiny', suite='shapes', prompts=max(len(r.get('adherence', ())) for r in rows), seeds=1, rounds=ask.rounds, space=space.as_dict(), default=dict(zip(choices, default)), rows=rows)
    return 0


if __name__ == '__main__': sys.exit(main())
