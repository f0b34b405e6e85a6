"""Whether a search over patches of the embedded model beats random search, and the patches that people use: 20 seeds, paired, as many trials for each. What a patch costs is measured, in turn, and predicted; what it spoils is how far the latents of two clips are from those of the whole model. `python tests/nightly_architecture.py --out papers/results`"""
import json
import os
import sys
import time
from pathlib import Path

import moocore
import numpy as np
from record import keep, options

reference, trials, tried = (1.01, .5), 40, ('architecture', 'evolution', 'optuna:TPESampler')


class Denoiser:
    "The embedded model as a table that fills: a patch is measured once."
    def __init__(self, known: str) -> None:
        from vdb.models.pipelines import load
        from vdb.prompts.suites import load_suite
        self.file, self.prompts, self.whole = known and Path(known), load_suite('shapes').prompts[::30], load('tiny')
        lines = self.file.read_text().splitlines() if known and self.file.exists() else []
        self.errors = dict(map(json.loads, lines))
        self.latents = self.made(self.whole)

    def made(self, model) -> np.ndarray:
        "The latents of a clip of each prompt."
        from vdb.models.pipelines import noise_seed
        import torch
        noise = [torch.Generator().manual_seed(noise_seed(p, 0)) for p in self.prompts]
        given = dict(prompt=[p.text for p in self.prompts], negative_prompt=['']*len(noise), generator=noise, output_type='latent')
        return model.frames_of(given, model.defaults).float().numpy()

    def error(self, patch: dict) -> float:
        "How far its latents are from those of the whole model, relative to their size."
        from vdb.core import canonical_json
        from vdb.models.pipelines import load
        from vdb.patches import Patch
        changes = Patch.read(patch).changes
        key = canonical_json(changes)
        if key not in self.errors:
            off = self.made(load('tiny', profile=dict(patch=changes))) - self.latents if changes else np.zeros(1)
            self.errors[key] = float(np.sqrt((off**2).mean()/(self.latents**2).mean()))
            if self.file: self.file.open('a').write(json.dumps([key, self.errors[key]]) + '\n')
        return self.errors[key]


def costs(space, rounds: int) -> dict:
    "Fourteen patches drawn by the moves of the search, each the median of some rounds, in turn; and the model of three numbers."
    from vdb.core import Prompt, Settings
    from vdb.models.pipelines import load
    from vdb.optimize.architecture import LatencyModel, moved, regular
    from vdb.optimize.tunable import patch_of
    from vdb.patches import RUNS, Patch
    rng = np.random.default_rng(0)
    whole = {n: RUNS if n.startswith('run') else 1. for n in space.parameters}
    drawn = [whole, regular(whole, 2), regular(whole, 3)]
    while len(drawn) < 14: drawn.append(moved(moved(moved(moved(drawn[rng.integers(3)], rng), rng), rng), rng))
    patches = [Patch.read(patch_of(c)) for c in drawn]
    models, took = [load('tiny', profile=dict(patch=p)) for p in patches], np.zeros((rounds + 1, 14))
    for n in range(rounds + 1):
        for k, model in enumerate(models):
            begun = time.perf_counter()
            model.generate_batch([Prompt('a red circle moves right quickly on a black background')], [n], Settings())
            took[n, k] = time.perf_counter() - begun
    seconds = np.median(took[1:], axis=0)
    model = LatencyModel(patches, seconds)
    return dict(parts=[float(x) for x in model.parts], error=model.error, patches=[dict(patch=p.as_dict(), seconds=float(s)) for p, s in zip(patches, seconds)])


def volume(found: list) -> float:
    "Of relative seconds and errors, the whole model among them."
    return float(moocore.hypervolume(np.array([(1., 0.), *found]), ref=np.array(reference)))


def main() -> int:
    from vdb.optimize.architecture import LatencyModel, regular
    from vdb.optimize.objectives import Objective, Outcome
    from vdb.optimize.strategies import new_strategy
    from vdb.optimize.tunable import architecture_space, default_config, patch_of
    from vdb.patches import Patch
    from vdb.stats.paired import compare
    ask = options(__doc__, seeds=20, rounds=7, known='')
    denoiser = Denoiser(ask.known)
    space = architecture_space(denoiser.whole)
    whole, goals = default_config(denoiser.whole, space), (Objective('latency', 'lower'), Objective('error', 'lower'))
    parts = Path(f'{ask.known}.costs') if ask.known else None
    cost = json.loads(parts.read_text()) if parts and parts.exists() else costs(space, ask.rounds)
    if parts: parts.write_text(json.dumps(cost))
    print({k: v for k, v in cost.items() if k != 'patches'}, flush=True)
    full = sum(cost['parts'])
    def values(config): return float(np.dot(cost['parts'], LatencyModel.shares(Patch.read(patch_of(config))))/full), min(denoiser.error(patch_of(config)), 5.)
    def searched(name, seed):
        search, found = new_strategy(name, space, goals, seed), []
        search.tell(whole, Outcome((1., 0.), (0., 0.)))  # As in `vdb tune`
        for _ in range(trials):
            config = search.ask()
            found.append(values(config))
            search.tell(config, Outcome(found[-1], (0., 0.)))
        return volume(found)
    used = volume([values(regular(whole, every)) for every in (2, 3, 4, 8)])
    drawn, rows = [searched('random', seed) for seed in range(ask.seeds)], []
    for name in tried if ask.seeds else ():
        found = np.array([searched(name, seed) for seed in range(ask.seeds)])
        change, gains = compare(np.array(drawn)[:, None], found[:, None], 'higher'), found - drawn
        rows.append(dict(strategy=name, random=float(np.mean(drawn)), found=float(found.mean()), lo=float(change.lo), hi=float(change.hi), gain=float(gains.mean()), wins=int((gains > 0).sum()), regular=used, beats_regular=int((found > used).sum())))
        print(rows[-1], flush=True)
    if ask.seeds: keep('architecture', ask.out, os.cpu_count(), seeds=ask.seeds, trials=trials, reference=reference, cost=cost, strategies=rows)
    return 0


if __name__ == '__main__': sys.exit(main())
