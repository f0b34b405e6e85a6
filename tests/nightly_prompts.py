"""Whether settings that are chosen prompt by prompt beat the single best ones on prompts that nobody learned from: two made problems, 20 seeds each, and the embedded model, 20 splits of its prompts. `python tests/nightly_prompts.py --out papers/results`"""
import math
import os
import sys
import tempfile
import time

import numpy as np
from record import keep, options

seeds = 20
learned, unseen = 40, 200
steps = (2, 4, 8, 16)
noises = (.1, .3)  # Of what is missing of the quality of a prompt
problems = {'fast and crowded prompts need more steps': dict(slow=(1., 2.), fast=(5., 10.)), 'the prompt makes no difference': dict(slow=(3., 3.), fast=(3., 3.))}


def prompts_of(rng, n):
    from vdb.core import Prompt
    return [Prompt(' '.join(['word']*int(rng.integers(5, 25))), f'p{i}', dict(motion=str(rng.choice(['slow', 'fast'])), complexity=str(rng.choice(['one object', 'two objects'])), category=str(rng.choice([*'abcde'])))) for i in range(n)]


def costs_of(prompts, need):
    "What each number of steps costs for each prompt, without noise: a time and what is missing of the quality."
    needs = np.array([need[p.tags['motion']][p.tags['complexity'] == 'two objects'] for p in prompts])
    return [(np.full(len(prompts), n/16), np.exp(-n/needs)) for n in steps]


def made(need, noise, seed):
    "The regret on unseen prompts of the single best settings and of those chosen by prompt, and whether the prompt made a difference."
    from vdb.optimize.objectives import Objective, Outcome
    from vdb.optimize.reinforcement import PromptPolicy
    rng, goals, outcomes = np.random.default_rng(seed), (Objective('latency', 'lower'), Objective('missing', 'lower')), []
    given, fresh = prompts_of(rng, learned), prompts_of(rng, unseen)
    hard = .2*rng.standard_normal(learned)
    for n, (seconds, missing) in zip(steps, costs_of(given, need)):
        seen = dict(latency=seconds*np.exp(.05*rng.standard_normal(learned)), missing=missing + hard + noise*rng.standard_normal(learned))
        outcomes.append((dict(steps=n), Outcome(tuple(float(x.mean()) for x in seen.values()), by_prompt={name: {p.id: float(v) for p, v in zip(given, x)} for name, x in seen.items()})))
    policy, true = PromptPolicy.learn(given, outcomes, goals), np.array([np.ravel(x) for x in costs_of(fresh, need)]).reshape(len(steps), 2, -1)
    total = sum(true[:, k]/np.ptp(true[:, k].mean(1)) for k in range(2))/2
    def regret(choices): return float((total[[steps.index(c['steps']) for c in choices], range(unseen)] - total.min(0)).mean())
    return regret([policy.single]*unseen), regret([policy.choose(p) for p in fresh]), math.isfinite(policy.ridge)


def against(single, chosen):
    "What choosing by prompt gains, and its interval."
    from vdb.stats.paired import compare
    change, gain = compare(np.array(single)[:, None], np.array(chosen)[:, None], 'lower'), np.array(single) - chosen
    return dict(single=float(np.mean(single)), by_prompt=float(np.mean(chosen)), gain=float(gain.mean()), lo=float(min(-change.lo, -change.hi)), hi=float(max(-change.lo, -change.hi)), wins=int((gain > 1e-12).sum()), losses=int((gain < -1e-12).sum()))


def table(ask):
    "What the embedded model makes of the suite with nine settings: configuration -> outcome."
    import vdb
    from vdb.optimize.objectives import Objective, outcome_of
    from vdb.prompts.suites import load_suite
    goals, found, prompts = (Objective('latency', 'lower'), Objective('adherence', 'higher')), [], load_suite('shapes').prompts
    with tempfile.TemporaryDirectory() as aside:
        for n, config in enumerate([dict(steps=s, guidance=g) for s in (2, 4, 8) for g in (1.5, 4., 7.)]):
            run = vdb.run('tiny', 'shapes', seeds=2, metrics=['adherence'], out=f'{aside}/{n}', progress=False, **config)
            found.append((config, outcome_of(run, goals)))
            print(config, [round(v, 4) for v in found[-1][1].values], found[-1][1].reason, flush=True)
    return prompts, goals, found


def splits(prompts, goals, found, weights, n):
    "Two thirds of the prompts are learned from, the others chosen for; what they cost was recorded."
    from vdb.optimize.reinforcement import PromptPolicy, weighted_costs
    found = [(c, o) for c, o in found if o.ok]  # Black clips with much guidance
    configs, cost = [c for c, _ in found], weighted_costs(prompts, [o for _, o in found], goals, weights)
    single, chosen, used = [], [], 0
    for seed in range(n):
        order = np.random.default_rng(seed).permutation(len(prompts))
        known, fresh = order[:40], order[40:]
        policy = PromptPolicy.learn([prompts[i] for i in known], found, goals, weights)
        single.append(float(cost[configs.index(policy.single), fresh].mean()))
        chosen.append(float(np.mean([cost[configs.index(policy.choose(prompts[i])), i] for i in fresh])))
        used += math.isfinite(policy.ridge)
    oracle = cost.min(0).mean()
    return against(single, chosen) | dict(used=used, oracle=float(oracle))


def main() -> int:
    ask, rows, began = options(__doc__, seeds=seeds, splits=20), [], time.perf_counter()
    for name, need, noise in ((name, need, noise) for name, need in problems.items() for noise in noises):
        single, chosen, used = zip(*(made(need, noise, seed) for seed in range(ask.seeds)))
        rows.append(dict(problem=f'{name}, noise {noise}', repeats=ask.seeds, what='regret') | against(single, chosen) | dict(used=sum(used)))
        print(rows[-1], flush=True)
    prompts, goals, found = table(ask)
    for weights in ([1, 1], [0, 1], [1, 3]):
        rows.append(dict(problem=f'tiny, latency {weights[0]} : adherence {weights[1]}', repeats=ask.splits, what='cost') | splits(prompts, goals, found, weights, ask.splits))
        print(rows[-1], flush=True)
    kept = [dict(config=c, reason=o.reason, values=dict(zip(('latency', 'adherence'), o.values)), by_prompt={g.name: {p: round(x, 4) for p, x in o.by_prompt.get(g.name, {}).items()} for g in goals}) for c, o in found]
    keep('prompts', ask.out, os.cpu_count(), seconds=round(time.perf_counter() - began), rows=rows, table=kept)
    return 0


if __name__ == '__main__': sys.exit(main())
