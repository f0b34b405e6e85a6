"The metric."
from vdb.metrics.base import Frames, metric


@metric(kind='clip', unit='1', direction='higher', range=(0, 1), margin=.01, needs=(Frames(1),))
def redness(video) -> float:
    "The mean of the red channel, 0 to 1."
    return float(video.frames[..., 0].mean()/255)
