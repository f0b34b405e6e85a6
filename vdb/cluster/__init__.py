"One notebook and a grid of parameters, or one run, on many processes, here or on a cluster."
from importlib import import_module

_public = {'AutoScaling': 'scaling', 'Batch': 'batch', 'FaultTolerance': 'faults', 'LocalExecutor': 'local',
           'RayExecutor': 'ray', 'ResourceManager': 'resources', 'TaskScheduler': 'scheduler',
           'new_batch': 'batch', 'run_batch': 'batch', 'run_sharded': 'shards'}

__all__ = [*_public]


def __getattr__(name):  # Loaded when first used, so that importing a part stays fast
    if name in _public: return getattr(import_module(f'{__name__}.{_public[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__(): return sorted(__all__)
