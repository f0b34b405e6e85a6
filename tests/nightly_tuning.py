"""A search for faster settings of the embedded model, each trial and how the choice held up on unseen prompts: a dated JSON file. `python tests/nightly_tuning.py --out papers/results`"""
import json
import os
import sys
import tempfile
import time

from record import keep, options


def main() -> int:
    from vdb.optimize.search import tune
    ask = options(__doc__, budget=60, strategy='', space='', seed=0)
    def made(x): return sum(found.run_of(x).counts[k] for k in ('ok', 'failed'))
    with tempfile.TemporaryDirectory() as aside:
        began = time.perf_counter()
        found = tune('tiny', 'latency', 'adherence', 'memory_gb < 8', ask.budget, ask.strategy or None, ask.space or None, seed=ask.seed, out=f'{aside}/search')
        took, held = time.perf_counter() - began, found.confirmation
        trials = json.loads(found.table.drop(columns=['reason']).to_json(orient='records', double_precision=5))
        clips = dict(made=sum(made(x) for x in found.trials if x.same_as is None and x.done), whole=len(found.trials)*len(found.plan.prompts)*len(found.plan.seeds))
        rechecks = [dict(trial=n, not_worse=x.not_worse, held_up=x.held_up) for n, x in found.rechecks.items()]
        chosen = held and dict(trial=held.trial.number, settings=held.trial.config, held_up=held.held_up, prompts=len(found.plan.unseen), seeds=len(found.plan.unseen_seeds),
                               changes=[dict(name=c.name, default=c.default, chosen=c.chosen, lo=c.lo, hi=c.hi, better=c.better) for c in held.changes], verdicts={r.metric: str(r.verdict) for r in held.guarded})
        print(found, chosen)
        keep('tuning' + (ask.space and f'-{ask.space}'), ask.out, os.cpu_count(), strategy=found.plan.strategy, seed=ask.seed, seconds=round(took), clips=clips, model=found.model, suite=found.plan.suite, space=found.plan.space.as_dict(), trials=trials, rechecks=rechecks, chosen=chosen)
    return 0


if __name__ == '__main__': sys.exit(main())
