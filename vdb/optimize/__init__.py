"Searches for a model's best settings."
from importlib import import_module

_public = {'Space': 'space', 'BayesianOptimizer': 'bayesian', 'EvolutionaryOptimizer': 'evolutionary',
           'ReinforcementOptimizer': 'reinforcement', 'PromptPolicy': 'reinforcement',
           'ArchitectureSearch': 'architecture',
           'tune': 'search', 'open_tuning': 'tuning'}

__all__ = [*_public]


def __getattr__(name):  # Loaded when first used, so that importing a part stays fast
    if name in _public: return getattr(import_module(f'{__name__}.{_public[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__(): return sorted(__all__)
