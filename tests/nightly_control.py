"""The ladder of the embedded model on this machine, and a recorded load: blocks back to back while other processes come and go. As a dated JSON file. `python tests/nightly_control.py --out papers/results`"""
import json
import os
import subprocess
import sys
import time

import numpy as np
from record import keep, options

burner = 'while True: sum(range(10**6))'


def recorded(model, settings, level, prompt, seconds: float, seed: int) -> dict:
    "Seconds of each block at one level, with no other process, a background one or one like itself, for 4 to 12 s each."
    from vdb.streaming.engine import BlockMaker
    rng, others, plan, blocks = np.random.default_rng(seed), [], [], []
    maker = BlockMaker(model, 0, settings)
    maker.make(prompt)
    start = change = time.perf_counter()
    try:
        while (now := time.perf_counter() - start) < seconds:
            if start + now >= change:
                kind = 'none' if now < 10 else str(rng.choice(['none', 'background', 'equal'], p=[.45, .4, .15]))  # Alone at first
                while others:
                    others[-1].kill()
                    others.pop().wait()
                if kind != 'none': others.append(subprocess.Popen(['nice', '-n', '5' if kind == 'background' else '0', sys.executable, '-c', burner]))
                plan.append((round(now, 3), kind))
                change = start + now + (10 if now < 10 else rng.uniform(4, 12))
            maker.make(prompt, level)
            blocks.append((now, time.perf_counter() - start - now))
    finally:
        for other in others: other.kill()
    return dict(others=plan, at=[round(a, 4) for a, _ in blocks], block_s=[round(s, 5) for _, s in blocks])


def main() -> int:
    from vdb.cells import use_threads
    from vdb.models.pipelines import load
    from vdb.prompts.suites import load_suite
    from vdb.streaming.calibration import calibrate
    from vdb.streaming.continuation import as_streaming
    from vdb.streaming.live import stream_settings
    ask = options(__doc__, clips=24, seconds=240.)
    threads = use_threads(os.cpu_count())
    model, prompts = as_streaming(load('tiny')), list(load_suite('tiny').prompts)
    found = calibrate(model, prompts, stream_settings(model), clips=ask.clips)
    ladder = [dict(steps=l.settings.steps, guidance=l.settings.guidance, height=l.settings.height, width=l.settings.width, window=l.window, frames=l.frames,
                   block_s=round(l.block_s, 5), quality=round(l.quality, 4)) for l in found.ladder]
    tried = json.loads(found.rows.round(4).to_json(orient='records'))
    load_ = recorded(model, stream_settings(model), found.ladder[-1], prompts[0], ask.seconds, 0)
    keep('control', ask.out, threads, prompts=len(prompts), clips=int(found.quality.shape[1]), ladder=ladder, candidates=tried, recorded=load_)
    return 0


if __name__ == '__main__': sys.exit(main())
