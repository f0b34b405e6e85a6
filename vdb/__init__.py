"Benchmark video diffusion models: quality with uncertainty, cost and streaming, in notebooks."
__version__ = "0.1.0"

_public = {'load': 'models.pipelines', 'run': 'bench', 'verify': 'bench', 'score': 'external',
           'rescore': 'rescoring', 'open_run': 'runs', 'compare': 'comparison'}

__all__ = ['__version__', *_public]


def __getattr__(name):  # Loaded when first used, so that `import vdb` stays fast
    from importlib import import_module
    if name in _public: return getattr(import_module(f'vdb.{_public[name]}'), name)
    try: return import_module(f'vdb.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'vdb.{name}': raise
        raise AttributeError(f"module 'vdb' has no attribute {name!r}") from None


def command() -> None:
    "The command `vdb`. Ctrl-C while its modules are still being read ends it with the same line as later."
    try: from vdb.cli import main
    except KeyboardInterrupt:
        import sys
        from vdb.i18n import t
        print('vdb: ' + t('stopped before anything was done'), file=sys.stderr)
        sys.exit(130)
    main()


def __dir__(): return sorted(__all__)


def _mimebundle(video) -> dict:
    from vdb.media.show import mimebundle
    return mimebundle(video)


def _show_videos() -> None:
    "In a notebook a `Video` plays. IPython is told by the type's name, which loads nothing."
    import sys
    ipython = sys.modules.get('IPython')
    shell = ipython and ipython.get_ipython()
    if shell: shell.display_formatter.mimebundle_formatter.for_type_by_name('vdb.core', 'Video', _mimebundle)


_show_videos()
