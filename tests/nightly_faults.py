"""A stream with a quality controller while things go wrong: other processes burn the cores, the process is stopped and goes on, the viewer is slow. What it chose and what was told, as a dated JSON file. `python tests/nightly_faults.py --out papers/results`"""
import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
from record import keep, options

prompts = ['a red circle moves right quickly on a black background', 'a blue square moves left slowly on a white background']
burner = 'while True: sum(range(10**6))'


def trouble(kind: str, seconds: float, fps: float) -> tuple[list[subprocess.Popen], object]:
    "What goes wrong in the middle third of a stream: other processes, and what the viewer does with a frame."
    begin, long = seconds/3, seconds/3
    slow = lambda frame: time.sleep(12/fps) if begin < time.perf_counter() - trouble.since < begin + long else None
    if kind == 'slow viewer': return [], slow
    script = dict(burn=f'for i in 1 2 3; do timeout {long} {sys.executable} -c "{burner}" & done; wait',
                  stop=f'kill -STOP {os.getpid()}; sleep {min(2., long)}; kill -CONT {os.getpid()}')[kind]
    return [subprocess.Popen(['sh', '-c', f'sleep {begin}; {script}'], start_new_session=True)], None


async def watched(model, ladder, kind: str, seconds: float, fps: float, controller: str) -> dict:
    from vdb.reports.stream import stream_sentences
    from vdb.streaming import benchmark_live_streaming
    others, states, on_frame = [], [], None
    def tell(state):
        if not states:  # It has begun: the warm-up is over
            trouble.since = time.perf_counter()
            more, act = trouble(kind, seconds, fps)
            others.extend(more)
            acts.append(act)
        states.append(state)
    acts = []
    try: metrics = await benchmark_live_streaming(model, prompts, seconds, fps, on_state=tell, on_frame=lambda frame: acts and acts[0] and acts[0](frame), keep=False, controller=controller, ladder=ladder)
    finally:
        for other in others:
            with suppress(ProcessLookupError): os.killpg(other.pid, signal.SIGKILL)
            other.wait()
    blocks, third = metrics.trace.blocks, seconds/3
    levels = lambda begin, end: [b.level for b in blocks if begin <= b.begun < end]
    mean = lambda x: round(float(np.mean(x)), 3) if len(x) else None
    m = {k: v.value for k, v in metrics.measures.items()}
    return dict(kind=kind, blocks=len(blocks), level=[mean(levels(k*third, (k + 1)*third)) for k in range(3)], lowest=min(b.level for b in blocks), last=blocks[-1].level,
                ended=round(blocks[-1].finished, 2), stall_s=round(m['stall_seconds'], 3), dropped=round(m['frame_drop_rate'], 4), told_dropped=states[-1].dropped,
                told=stream_sentences(metrics), levels=''.join(str(b.level) for b in blocks))


def main() -> int:
    from vdb.cells import use_threads
    from vdb.core import Prompt
    from vdb.models.pipelines import load
    from vdb.streaming.calibration import calibrate
    from vdb.streaming.continuation import as_streaming
    from vdb.streaming.control import Candidate
    from vdb.streaming.live import stream_settings
    ask = options(__doc__, seconds=30., clips=8, controller='bola')
    threads = use_threads(os.cpu_count())
    model = as_streaming(load('tiny'))
    settings = stream_settings(model)
    levels = [Candidate(settings, model.context), *(Candidate(replace(settings, steps=steps), 1) for steps in (3, 2, 1))]
    ladder = calibrate(model, [Prompt(p) for p in prompts], settings, levels, clips=ask.clips).ladder
    fps = round(.6*ladder[-1].frames/ladder[-1].block_s, 1)  # The highest level takes 0.6 of the time, alone
    found = [asyncio.run(watched(model, ladder, kind, ask.seconds, fps, ask.controller)) for kind in ('burn', 'stop', 'slow viewer')]
    keep('faults', ask.out, threads, controller=ask.controller, seconds=ask.seconds, fps=fps, ladder=[[round(l.block_s, 5), round(l.quality, 4)] for l in ladder], faults=found)
    return 0


if __name__ == '__main__': sys.exit(main())
