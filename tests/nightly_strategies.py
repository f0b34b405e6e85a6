"""Whether a strategy beats random search, on a problem made for its premise: 20 seeds, paired, as many trials for each. `python tests/nightly_strategies.py --out papers/results`, and with `--problem 'a dozen levers'` one of them"""
import math
import os
import sys
import time

import moocore
import numpy as np
from record import keep, options

seeds = 20


def few(c):
    "Settings of a model: six of them, one conditional, of which some fail. Latency, and a quality that is higher when better."
    if c['steps'] == 1 or c['dtype'] == 'bfloat16' and c['scheduler'] == 'unipc' and c['steps'] < 4: return None
    latency = (.2 + .1*c['steps']*(1 if c['guidance'] < 1.2 else 1.9))*(.62 if c['dtype'] == 'bfloat16' else 1)*(c['threads']**-.7 + .06*c['threads'])
    quality = (1 - math.exp(-c['steps']/dict(euler=7, unipc=4, ddim=10)[c['scheduler']]))*math.exp(-(math.log(c['guidance']/5.5)/.8)**2)
    quality *= 1 - .25*(c['rescale'] - .6)**2 if 'rescale' in c else .93
    return latency, quality - .015*(c['dtype'] == 'bfloat16')


def many(c):
    "ZDT1 of ten numbers (Zitzler, Deb and Thiele 2000)."
    first, *rest = c.values()
    g = 1 + 9*sum(rest)/len(rest)
    return first, g*(1 - math.sqrt(first/g))


def separable(c):
    "A dozen levers of five notches: each adds its own to both costs, the same wherever the others stand. Six trade one cost for the other, six are good or bad for both."
    total = np.zeros(2)
    for n, notch in enumerate(c.values()):
        x, strength = notch/4, np.array([1 + n % 3, 1 + n % 4])
        total += strength*(np.array([x, 1 - x]) if n < 6 else np.array([x, x]) if n % 2 else np.array([1 - x, 1 - x]))
    return tuple((total/12).tolist())


def problems():
    from vdb.optimize.space import Categorical, Integer, Ordinal, Real, Space
    settings = Space(dict(scheduler=Categorical(['euler', 'unipc', 'ddim']), steps=Integer(1, 50, log=True), guidance=Real(1., 12.), rescale=Real(0., 1., when='guidance > 2'),
                          dtype=Categorical(['float32', 'bfloat16']), threads=Ordinal([1, 2, 4, 8])))
    numbers = Space({f'x{n}': Real(0., 1.) for n in range(10)})
    levers = Space({f'x{n}': Ordinal([0, 1, 2, 3, 4]) for n in range(12)})
    return [dict(premise='few trials of something smooth', problem='settings', space=settings, measure=few, noise=0., ways=('lower', 'higher'), reference=(8., 0.), trials=40, tried=('bayes', 'evolution', 'optuna:TPESampler')),
            dict(premise='few trials, measured with known errors', problem='settings, with errors of 0.1 and 5 %', space=settings, measure=few, noise=.1, ways=('lower', 'higher'), reference=(8., 0.), trials=40, tried=('bayes', 'optuna:TPESampler')),
            dict(premise='many cheap trials', problem='ZDT1, ten numbers', space=numbers, measure=many, noise=0., ways=('lower', 'lower'), reference=(1.1, 8.), trials=200, tried=('evolution', 'optuna:NSGAIISampler', 'optuna:TPESampler')),
            dict(premise='a move does the same everywhere', problem='a dozen levers', space=levers, measure=separable, noise=0., ways=('lower', 'lower'), reference=(2.5, 3.), trials=100, tried=('reinforcement', 'reinforcement, near-sighted', 'bayes', 'evolution', 'optuna:TPESampler'))]


def near_sighted():
    "Q-learning that counts nothing of what comes after a move."
    from vdb.optimize.reinforcement import ReinforcementOptimizer
    from vdb.optimize.strategies import strategy
    strategy('reinforcement, near-sighted')(type('NearSighted', (ReinforcementOptimizer,), dict(discount=0.)))


def volume(given, name, seed):
    "The hypervolume of what a strategy tried, as it is without noise, and the strategy's own seconds."
    from vdb.optimize.objectives import Objective, Outcome
    from vdb.optimize.strategies import new_strategy
    goals = tuple(Objective(n, way) for n, way in zip(('latency', 'quality'), given['ways']))
    search, rng, found, took = new_strategy(name, given['space'], goals, seed), np.random.default_rng(seed), [], 0.
    for _ in range(given['trials']):
        began = time.perf_counter()
        config = search.ask()
        took += time.perf_counter() - began
        values, e = given['measure'](config), given['noise']
        if values: found.append([o.sign*v for o, v in zip(goals, values)])
        seen = values and (values[0]*math.exp(e/2*rng.standard_normal()), values[1] + e*rng.standard_normal())
        began = time.perf_counter()
        search.tell(config, Outcome(seen, (seen[0]*e/2, e)) if seen else Outcome(reason='black_clip'))
        took += time.perf_counter() - began
    return moocore.hypervolume(np.array(found), ref=np.array(given['reference'])*[1., 1. if given['ways'][1] == 'lower' else -1.]), took


def main() -> int:
    from vdb.stats.paired import compare
    ask, rows = options(__doc__, seeds=seeds, problem=''), []
    near_sighted()
    for given in problems():
        if ask.problem not in ('', given['problem']): continue
        drawn = [volume(given, 'random', seed)[0] for seed in range(ask.seeds)]
        for name in given['tried']:
            found = [volume(given, name, seed) for seed in range(ask.seeds)]
            gains = np.array([v for v, _ in found]) - drawn
            change = compare(np.array(drawn)[:, None], np.array([v for v, _ in found])[:, None], 'higher')
            rows.append(dict(strategy=name, premise=given['premise'], problem=given['problem'], trials=given['trials'], random=float(np.mean(drawn)), found=float(np.mean([v for v, _ in found])),
                             gain=float(gains.mean()), lo=float(change.lo), hi=float(change.hi), wins=int((gains > 0).sum()), seconds=float(np.mean([s for _, s in found]))))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    for kind in ('strategies', 'moves'):
        of = [r for r in rows if (kind == 'moves') == (r['problem'] == 'a dozen levers')]
        if of: keep(kind, ask.out, os.cpu_count(), seeds=ask.seeds, strategies=of)
    return 0


if __name__ == '__main__': sys.exit(main())
