"""Coverage and error rates of vdb.stats by simulation, as a dated JSON file. `python tests/nightly_stats.py --out papers/results`

Every rate is over `replicates` simulated runs whose truth is known; its standard error is sqrt(r (1 - r)/replicates), 0.5 points at 95 % and 2,000."""
import argparse
import datetime
import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np
import scipy
from scipy.stats import binom

from vdb.metrics.base import source_hash
from vdb.stats.intervals import Shift, estimates
from vdb.stats.paired import comparisons, holm, sign_flip_p
from vdb.stats.planning import needed_prompts, needed_proportion_prompts
from vdb.stats.simulation import aa_findings, simulate_cells
from vdb.stats.verdicts import Verdict

sizes = ((10, 4), (30, 4), (72, 5), (100, 8))  # prompts, seeds
iccs = (0, .3, .6, .8)
batch = 250  # Simulated runs are the metrics of one call
few = dict(resamples=2000)  # In place of 10,000: what that costs in coverage is below the resolution of the simulation

def batches(replicates, case):
    "Generators that differ by batch and by case, the same in every run of this script."
    for b in range(-(-replicates//batch)): yield np.random.default_rng([b, int(hashlib.sha256(case.encode()).hexdigest()[:8], 16)])

def covered(records, truth): return np.array([r.lo <= truth + 1e-12 and r.hi >= truth - 1e-12 for r in records])
def width(records): return np.array([r.hi - r.lo for r in records])
def rate(parts): return round(float(np.mean(np.concatenate(parts))), 4)

def lognormal(prompts, seeds, metrics, icc, rng):
    "Much more skewed than an exponential: 6.2 against 2."
    return np.exp(np.sqrt(icc)*rng.standard_normal((prompts, 1, metrics)) + np.sqrt(1 - icc)*rng.standard_normal((prompts, seeds, metrics)))

def draw(shape, prompts, seeds, icc, rng):
    "Scores of `batch` simulated runs and the true mean."
    if shape == 'lognormal': return lognormal(prompts, seeds, batch, icc, rng), float(np.exp(.5))
    if shape.startswith('proportion'): return simulate_cells(prompts, seeds, batch, icc, 'proportion', float(shape.split()[1]), rng), float(shape.split()[1])
    return simulate_cells(prompts, seeds, batch, icc, shape, 0., rng), 0.

def grid():
    for prompts, seeds in sizes:
        for icc in iccs: yield dict(prompts=prompts, seeds=seeds, icc=icc)

def estimate_coverage(n):
    "Does the interval of a mean hold the true mean of prompts like these?"
    for shape in ('gaussian', 'skewed', 'proportion 0.6', 'proportion 0.9', 'lognormal'):
        for g in grid():
            found = []
            for i, rng in enumerate(batches(n, f'estimate {shape} {g}')):
                y, truth = draw(shape, **g, rng=rng)
                records = estimates(y, seed=i, **few)
                found.append((covered(records, truth), width(records), {r.method for r in records}))
            hit, wide, how = zip(*found)
            yield dict(shape=shape, **g, coverage=rate(hit), width=rate(wide), methods=sorted(set().union(*how)))

def given_coverage(n):
    "The same for these prompts: the prompts' effects are kept, the seeds drawn anew. `common`: proportion of the seeds' variance that all prompts have in common."
    for shape in ('gaussian', 'skewed', 'proportion 0.6'):
        for common in ((0., .02, .2) if shape == 'gaussian' else (0.,)):
            for g in grid():
                hit, wide = [], []
                for i, rng in enumerate(batches(n, f'given {shape} {common} {g}')):
                    if shape.startswith('proportion'):
                        q = np.full((g['prompts'], 1, batch), .6) if g['icc'] == 0 else rng.beta(.6*(1/g['icc'] - 1), .4*(1/g['icc'] - 1), (g['prompts'], 1, batch))
                        y, truth = (rng.random((g['prompts'], g['seeds'], batch)) < q).astype(float), q.mean((0, 1))
                    else:
                        noise = simulate_cells(g['prompts'], g['seeds'], batch, 0, shape, rng=rng)*np.sqrt(1 - common) + rng.standard_normal((1, g['seeds'], batch))*np.sqrt(common)
                        u = np.sqrt(g['icc'])*rng.standard_normal((g['prompts'], 1, batch))
                        y, truth = u + np.sqrt(1 - g['icc'])*noise, u.mean((0, 1))
                    records = estimates(y, population='these prompts', seed=i, **few)
                    hit.append(np.array([r.lo <= m <= r.hi for r, m in zip(records, truth)])); wide.append(width(records))
                yield dict(shape=shape, common=common, **g, coverage=rate(hit), width=rate(wide))

def pair_of(shape, prompts, seeds, icc, rng, gains=.2, losses=.1):
    "Two simulated runs and the true difference. `icc` is that of the differences."
    if shape == 'proportion pairs':  # By prompt as the ICC says
        proportion = np.broadcast_to([gains, losses, 1 - gains - losses], (prompts, 1, batch, 3))
        if icc: proportion = rng.gamma(proportion*(1/icc - 1)) + 1e-300
        u, edge = rng.random((prompts, seeds, batch)), np.cumsum(proportion/proportion.sum(-1, keepdims=True), -1)
        gain, loss = u < edge[..., 0], (u >= edge[..., 0]) & (u < edge[..., 1])
        tie = rng.random(u.shape) < .5
        return (loss | ~(gain | loss) & tie).astype(float), (gain | ~(gain | loss) & tie).astype(float), gains - losses
    if shape == 'leaning':  # Differences that lean to one side, around 0: no flip of a sign is fair then
        a = rng.standard_normal((prompts, 1, batch)) + np.zeros((1, seeds, 1))
        return a, a + simulate_cells(prompts, seeds, batch, icc, 'skewed', rng=rng), 0.
    a, truth = draw(shape, prompts, seeds, icc, rng)
    b, _ = draw(shape, prompts, seeds, icc, rng)
    if shape.startswith('proportion'): return a, b, 0.
    prompt = 3*rng.standard_normal((prompts, 1, batch))  # Common to both: pairing removes it
    return prompt + a, prompt + b, 0.

def compare_coverage(n):
    "Does the interval of a difference hold the true one, and how often is a true 0 rejected: by the flips (`type_1`), and by a verdict, which needs the interval too (`found`)?"
    for shape in ('gaussian', 'skewed', 'proportion 0.6', 'proportion 0.95', 'proportion pairs', 'leaning'):
        for g in grid():
            hit, wide, false, both = [], [], [], []
            for i, rng in enumerate(batches(n, f'compare {shape} {g}')):
                a, b, truth = pair_of(shape, **g, rng=rng)
                records = comparisons(a, b, seed=i, **few)
                hit.append(covered(records, truth)); wide.append(width(records))
                false.append(np.array([r.p <= .05 for r in records])); both.append(false[-1] & ~covered(records, 0.))
            yield dict(shape=shape, **g, coverage=rate(hit), width=rate(wide), **({} if truth else dict(type_1=rate(false), found=rate(both))))

def disjoint_coverage(n):
    "The same with other seeds for the candidate."
    for shape in ('gaussian', 'proportion 0.6', 'proportion 0.95'):
        for g in grid():
            hit, false = [], []
            for i, rng in enumerate(batches(n, f'disjoint {shape} {g}')):
                y, _ = draw(shape, g['prompts'], 2*g['seeds'], g['icc'], rng)
                records = comparisons(y[:, :g['seeds']], y[:, g['seeds']:], pairing='prompt', seed=i, **few)
                hit.append(covered(records, 0.)); false.append(np.array([r.p <= .05 for r in records]))
            yield dict(shape=shape, **g, coverage=rate(hit), type_1=rate(false))

def naive(n):
    "What goes wrong without prompts as the unit: prompts and then seeds resampled; signs flipped by cell."
    for g in grid():
        twice, flips = [], []
        for rng in batches(min(n, 1000), f'naive {g}'):
            y, _ = draw('gaussian', **g, rng=rng)
            p, s = g['prompts'], g['seeds']
            means = np.array([y[rng.integers(0, p, p)[:, None], rng.integers(0, s, (p, s))].mean((0, 1)) for _ in range(1000)])
            lo, hi = np.quantile(means, (.025, .975), axis=0)
            twice.append((lo <= 0) & (hi >= 0))
            flips.append(sign_flip_p(y.reshape(-1, batch), 2000) <= .05)
        yield dict(**g, prompts_then_seeds_coverage=rate(twice), flip_by_cell_type_1=rate(flips))

def verdicts(n):
    "How often 'not worse' is said where the candidate is worse by exactly the margin, and how often `needed_prompts` finds what it promises."
    for shape in ('gaussian', 'skewed'):
        for g in grid():
            false = []
            for i, rng in enumerate(batches(n, f'verdict {shape} {g}')):
                a, b, _ = pair_of(shape, **g, rng=rng)
                labels = [dict(direction='higher', margin=.5)]*batch
                false.append(np.array([r.verdict is Verdict.NOT_WORSE for r in comparisons(a, b - .5, labels, seed=i, **few)]))
            yield dict(shape=shape, **g, false_not_worse=rate(false))
    for effect in (.2, .3, .5):
        prompts, right = needed_prompts(1., effect), []
        for i, rng in enumerate(batches(n, f'power {effect}')):
            d = rng.standard_normal((prompts, 1, batch))
            right.append(np.array([r.verdict in (Verdict.NOT_WORSE, Verdict.BETTER) for r in comparisons(0*d, d, [dict(direction='higher', margin=effect)]*batch, seed=i, **few)]))
        yield dict(effect=effect, needed=prompts, power=rate(right))

    for icc in (0, .3, .6):  # Zeros and ones: a pilot that shows the truth, then fresh runs of the size that it advises
        for margin in (None, .05):
            gain, loss = (.2, .1) if margin is None else (.1, .1)
            pilot = Shift(gain, loss, 30, icc, 1/4)
            prompts = min(k for k in needed_proportion_prompts(pilot, 1, margin, .05, 1) if k)
            right = []
            for i, rng in enumerate(batches(n, f'advice {icc} {margin}')):
                a, b, _ = pair_of('proportion pairs', prompts, 4, icc, rng, gain, loss)
                found = comparisons(a, b, [dict(direction='higher', margin=margin)]*batch, seed=i, **few)
                right.append(np.array([r.p <= .05 and not r.lo <= 0 <= r.hi or bool(margin) and r.bound > -margin for r in found]))
            yield dict(gain=gain, loss=loss, icc=icc, margin=margin, advised=prompts, reached=rate(right))

def family(n):
    "Any Holm finding among 10 metrics without a difference, independent and correlated."
    for correlation in (0, .8):
        for prompts, seeds in sizes:
            any_found = []
            for i, rng in enumerate(batches(n, f'family {correlation} {prompts}')):
                d = rng.standard_normal((prompts, batch, 10))*np.sqrt(1 - correlation) + rng.standard_normal((prompts, batch, 1))*np.sqrt(correlation)
                p = sign_flip_p(d.reshape(prompts, -1), 2000, i).reshape(batch, 10)
                any_found.append(np.array([holm(row).min() <= .05 for row in p]))
            yield dict(correlation=correlation, prompts=prompts, any_finding=rate(any_found))

def against_itself(n):
    "200 splits of the seeds of one run of 60 prompts x 16 seeds x 5 metrics, for several runs. `common` as in `given_coverage`. `within_band`: the runs whose proportion of findings is in the binomial band of 5 %."
    low, high = binom.interval(.95, 200, .05)
    for common in (0., .02, .1):
        for split in ('run', 'prompt'):
            proportions = []
            for i in range(max(4, n//100)):
                rng = np.random.default_rng([i, 77])
                y = np.sqrt(.4)*rng.standard_normal((60, 1, 5)) + np.sqrt(.6)*(np.sqrt(1 - common)*rng.standard_normal((60, 16, 5)) + np.sqrt(common)*rng.standard_normal((1, 16, 5)))
                proportions.append(float(aa_findings(y, 200, split, flips=1000, seed=i).mean()))
            yield dict(common=common, split=split, runs=len(proportions), mean=round(float(np.mean(proportions)), 4), low=min(proportions), high=max(proportions),
                       within_band=round(float(np.mean([low/200 <= s <= high/200 for s in proportions])), 3))

def speed():
    "Seconds for 10,000 resamples, or flips, of 100 prompts x 8 seeds x 10 metrics: the best and the median of 7."
    a, b = (simulate_cells(100, 8, 10, .3, rng=np.random.default_rng(i)) for i in range(2))
    for what, f in (('estimates', lambda: estimates(a)), ('comparisons', lambda: comparisons(a, b))):
        took = []
        for _ in range(7):
            start = time.perf_counter(); f(); took.append(time.perf_counter() - start)
        yield dict(what=what, seconds_best=round(min(took), 3), seconds_median=round(float(np.median(took)), 3))

def processor() -> str:
    if (info := Path('/proc/cpuinfo')).exists(): return next((x.split(':')[1].strip() for x in info.read_text().splitlines() if x.startswith('model name')), platform.machine())
    return platform.processor() or platform.machine()

def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument('--out', default='papers/results', help='folder of the JSON file')
    ask.add_argument('--replicates', type=int, default=2000)
    ask.add_argument('--only', nargs='*', help='parts to run; the others stay as a run of the same day and code left them')
    ask = ask.parse_args()
    n, start = ask.replicates, time.time()
    parts = dict(speed=speed, naive=lambda: naive(n), family=lambda: family(n), against_itself=lambda: against_itself(n), estimate=lambda: estimate_coverage(n), compare=lambda: compare_coverage(n),
                 disjoint=lambda: disjoint_coverage(n), given=lambda: given_coverage(n), verdicts=lambda: verdicts(n))
    head = dict(date=datetime.date.today().isoformat(), device=processor(), versions=dict(python=platform.python_version(), numpy=np.__version__, scipy=scipy.__version__),
                code={f.__name__: source_hash(f) for f in (estimates, comparisons, aa_findings)}, **few)  # Before anybody edits it
    path = Path(ask.out)/f"{head['date']}-stats-coverage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if ask.only and name not in ask.only: continue
        rows = list(part())
        there = json.loads(path.read_text()) if path.exists() else {}
        report = head | (there if all(there.get(k) == v for k, v in head.items()) else {})  # What other code has found is not kept
        report['replicates'] = report.get('replicates', {}) | {name: n}
        path.write_text(json.dumps(report | {name: rows}, indent=1).replace('\n   ', ' ').replace('\n  }', '}') + '\n')
        print(f'{time.time() - start:7.0f} s  {name}', flush=True)
    print(path)

if __name__ == '__main__': main()
