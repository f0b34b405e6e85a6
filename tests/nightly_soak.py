"""A stream that goes on: does memory grow, and is anything left running? As a dated JSON file. `python tests/nightly_soak.py --out papers/results --seconds 1800`"""
import asyncio
import math
import os
import sys
import threading

import numpy as np
from record import keep, options

record = 2000  # Bytes that the times of a block may take: 9,000 blocks in half an hour

prompts = ['a red circle moves right quickly on a black background', 'a blue square moves left slowly on a white background',
           'a green triangle moves up slowly on a grey background', 'a yellow star moves down quickly on a black background']


async def soak(seconds: float, fps: float) -> dict:
    from vdb.streaming import benchmark_live_streaming
    from vdb.streaming.measures import trend
    turns = [prompts[k % len(prompts)] for k in range(max(4, int(seconds/15)))]
    names = lambda: sorted(t.name for t in threading.enumerate() if t.name != 'tqdm_monitor')
    before = names()
    metrics = await benchmark_live_streaming('tiny', turns, seconds, fps, keep=False)
    at, size = np.array(metrics.trace.memory).T
    late = at > seconds/6  # Before that buffers fill and allocators settle
    slope, lo, hi = trend(at[late], size[late])  # Means of ten parts: what is between them is taken as independent
    thirds = [float(np.median(part)) for part in np.array_split(size[late], 3)]  # What leaks grows from each to the next; what settles late, once
    blocks_s = len(metrics.trace.blocks)/seconds
    shown = ('frame_latency', 'frame_drop_rate', 'stalls', 'frame_rate', 'memory_peak', 'memory_slope', 'switch_latency')
    return dict(seconds=seconds, fps=fps, blocks=len(metrics.trace.blocks), frames=len(metrics.trace.arrived), switches=len(turns) - 1,
                memory_start=size[late][0], memory_end=size[-1], grown_bytes=size[-1] - size[late][0], medians_of_thirds=thirds, slope_bytes_s=[float(x) for x in (slope, lo, hi)],
                grows=bool(lo > record*blocks_s), threads_left=[n for n in names() if n not in before], tasks_left=len(asyncio.all_tasks()) - 1,
                measures={k: {f: v if math.isfinite(v) else None for f, v in dict(value=m.value, lo=m.lo, hi=m.hi, n=m.n).items()} for k, m in metrics.measures.items() if k in shown})


def main() -> int:
    from vdb.cells import use_threads
    ask = options(__doc__, seconds=1800., fps=12.)
    threads = use_threads(os.cpu_count())
    found = asyncio.run(soak(ask.seconds, ask.fps))
    # A process's memory moves by 2 MB from one minute to the next
    passed = not found['threads_left'] and not found['tasks_left'] and not (found['grows'] and found['grown_bytes'] > 2e6 and min(np.diff(found['medians_of_thirds'])) > 2e6/4)
    keep('soak', ask.out, threads, passed=passed, load=os.getloadavg(), **found)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
