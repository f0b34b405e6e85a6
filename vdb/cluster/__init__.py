"Batches: one notebook and a grid of parameters, on the processes of a machine, with nothing lost."
from importlib import import_module

_public = {'Batch': 'batch', 'LocalExecutor': 'local', 'new_batch': 'batch', 'run_batch': 'batch'}

__all__ = [*_public]


def __getattr__(name):  # Loaded when first used, so that importing a part stays fast
    if name in _public: return getattr(import_module(f'{__name__}.{_public[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__(): return sorted(__all__)
