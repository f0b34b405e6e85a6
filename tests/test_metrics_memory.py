"""What a metric takes beside the clip does not grow with the clip's length: each works a frame or a pair at a time."""
import gc
import tracemalloc

import numpy as np
import pytest

from vdb.core import Prompt, Video
from vdb.metrics.base import choose

height, width = 288, 512
wanted = dict(shape='circle', colour='red', direction='right', speed='slow')
prompt = Prompt('a red circle moves right', expect={'objects': [wanted]})


def clip(n: int) -> Video:
    "A red disc on a light ground with faint grain: there is something to find, and no two frames are alike."
    rng, (y, x) = np.random.default_rng(0), np.indices((height, width))
    frames = np.empty((n, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = rng.integers(200, 206, (height, width, 1))
        frame[(x - 100 - 3*i)**2 + (y - 140)**2 < 50**2] = (220, 50, 40)
    return Video(frames, 16.)


def peak(metric, video: Video) -> int:
    "Bytes that measuring takes at most, the clip not counted."
    gc.collect()
    tracemalloc.start()
    try:
        row, = metric.measure(video, prompt=prompt)
        assert row.status == 'ok', row
        return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()


@pytest.mark.parametrize('metric', choose(), ids=lambda m: m.name)
def test_memory_does_not_grow_with_the_clip(metric):
    short, long = clip(6), clip(24)
    metric.measure(short, prompt=prompt)  # Imports, and tables that are made once
    least, most = peak(metric, Video(short.frames[:-1])), peak(metric, long)  # Neither is remembered
    frame = height*width*3
    assert most - least < 2*frame, f'{(most - least)/frame:.1f} frames of memory more for 19 frames more'
