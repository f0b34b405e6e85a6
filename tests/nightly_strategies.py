"""Whether a strategy beats random search, on a problem made for its premise: 20 seeds, paired, as many trials for each. `python tests/nightly_strategies.py --out papers/results`, and with `--problem 'a dozen levers'` one of them"""
import math
import os
import sys

import numpy as np
from record import keep, options

seeds = 20


def separable(c):
    "A dozen levers of five notches: each adds its own to both costs, the same wherever the others stand. Six trade one cost for the other, six are good or bad for both."
    from vdb.optimize.objectives import Outcome
    total = np.zeros(2)
    for n, notch in enumerate(c.values()):
        x, strength = notch/4, np.array([1 + n % 3, 1 + n % 4])
        total += strength*(np.array([x, 1 - x]) if n < 6 else np.array([x, x]) if n % 2 else np.array([1 - x, 1 - x]))
    return Outcome(tuple((total/12).tolist()))


def problems():
    from vdb.optimize.objectives import Objective
    from vdb.optimize.problems import Problem, settings_problem, zdt
    from vdb.optimize.space import Ordinal, Space
    levers = Problem('a dozen levers', Space({f'x{n}': Ordinal([0, 1, 2, 3, 4]) for n in range(12)}), (Objective('latency', 'lower'), Objective('quality', 'lower')), separable, (2.5, 3.))
    return [dict(premise='few trials of something smooth', problem=settings_problem(), trials=40, tried=('bayes', 'evolution', 'optuna:TPESampler')),
            dict(premise='few trials, measured with known errors', problem=settings_problem((.05, .1)), trials=40, tried=('bayes', 'optuna:TPESampler')),
            dict(premise='many cheap trials', problem=zdt('ZDT1'), trials=200, tried=('evolution', 'optuna:NSGAIISampler', 'optuna:TPESampler')),
            dict(premise='a move does the same everywhere', problem=levers, trials=100, tried=('reinforcement', 'reinforcement, near-sighted', 'bayes', 'evolution', 'optuna:TPESampler'))]


def near_sighted():
    "Q-learning that counts nothing of what comes after a move."
    from vdb.optimize.reinforcement import ReinforcementOptimizer
    from vdb.optimize.strategies import strategy
    strategy('reinforcement, near-sighted')(type('NearSighted', (ReinforcementOptimizer,), dict(discount=0.)))


def found(given, name, seed):
    "The hypervolume of what a strategy tried, as it is without noise, and the strategy's own seconds."
    from vdb.optimize.problems import searched
    search = searched(given['problem'], name, seed, given['trials'])
    return search.share.iloc[-1]*(1. if math.isnan(given['problem'].best) else given['problem'].best), search.seconds.sum()


def main() -> int:
    from vdb.stats.paired import compare
    ask, rows = options(__doc__, seeds=seeds, problem=''), []
    near_sighted()
    for given in problems():
        if ask.problem not in ('', given['problem'].name): continue
        drawn = [found(given, 'random', seed)[0] for seed in range(ask.seeds)]
        for name in given['tried']:
            volumes, seconds = map(np.array, zip(*(found(given, name, seed) for seed in range(ask.seeds))))
            gains = volumes - drawn
            change = compare(np.array(drawn)[:, None], volumes[:, None], 'higher')
            rows.append(dict(strategy=name, premise=given['premise'], problem=given['problem'].name, trials=given['trials'], random=float(np.mean(drawn)), found=float(volumes.mean()),
                             gain=float(gains.mean()), lo=float(change.lo), hi=float(change.hi), wins=int((gains > 0).sum()), seconds=float(seconds.mean())))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    for kind in ('strategies', 'moves'):
        of = [r for r in rows if (kind == 'moves') == (r['problem'] == 'a dozen levers')]
        if of: keep(kind, ask.out, os.cpu_count(), seeds=ask.seeds, strategies=of)
    return 0


if __name__ == '__main__': sys.exit(main())
