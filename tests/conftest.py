"Fixtures that more than one file of tests uses."
import signal

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores Ctrl-C, and children would inherit that


@pytest.fixture(scope='session')
def warm(tmp_path_factory):
    "Starts real `vdb` processes quickly."
    from warm import Warm
    made = Warm(tmp_path_factory.mktemp('warm'))
    yield made
    made.close()


@pytest.fixture(scope='session')
def pipeline(warm, tmp_path_factory):
    "`pipeline('ltx')` is the folder of a tiny pipeline with random weights, saved once a session."
    home, saved = tmp_path_factory.mktemp('pipelines'), {}
    def folder(kind: str):
        if kind not in saved:
            done = warm.python(f'import pipelines; pipelines.save({kind!r}, {str(home/kind)!r})')
            assert done.status == 0, done.err
            saved[kind] = home/kind
        return saved[kind]
    return folder


@pytest.fixture
def promptly():
    "What waits for a pipe is stopped, and fails."
    def stop(*_): pytest.fail('it hangs')  # No `except OSError` catches that
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
