"""Real processes without the wait: a parent imports torch, diffusers and vdb once, and every command is a child that it forks.

A child is a process of its own: it has its own pid, arguments, directory and standard streams, it can be killed with SIGKILL, and it runs
`vdb.cli.main` as the console script does. The parent computes nothing, so that there is no thread to lose in a fork."""
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

here = Path(__file__).resolve().parent


@dataclass
class Done:
    "How a process ended."
    status: int  # Exit status; negative: the signal that ended it
    out: str
    err: str


class Command:
    "A running child."
    def __init__(self, warm, pid: int, stem: Path):
        self.warm, self.pid, self.stem, self.status = warm, pid, stem, None

    def ended(self) -> bool:
        if self.status is None: self.status = self.warm._ask(wait=self.pid, options=os.WNOHANG)
        return self.status is not None

    def wait(self) -> Done:
        if self.status is None: self.status = self.warm._ask(wait=self.pid, options=0)
        return Done(self.status, *(self.stem.with_suffix(x).read_text(errors='replace') for x in ('.out', '.err')))

    def signal(self, which: int) -> None:
        "To a process that has ended, nothing."
        if self.status is None: os.kill(self.pid, which)

    def kill_after(self, seconds: float) -> Done:
        time.sleep(seconds)
        self.signal(signal.SIGKILL)
        return self.wait()


class Warm:
    "The parent, seen from a test."
    def __init__(self, folder: Path, program=(__file__,)):  # What the parent runs: it ends in `serve`
        self.folder, self.n = folder, 0
        self.process = subprocess.Popen([sys.executable, *map(str, program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'ready\n'

    def _ask(self, **what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def fork(self, **asked) -> Command:
        "A child that does what was asked."
        self.n += 1
        stem = self.folder/f'{self.n:04d}'
        return Command(self, self._ask(**asked, stem=str(stem)), stem)

    def start(self, *argv, cwd=None, env=None, setup='') -> Command:
        "`vdb ARGV...`; `setup` is Python that runs first, in the child."
        return self.fork(argv=[str(a) for a in argv], cwd=str(cwd or self.folder), env=env or {}, setup=setup)

    def __call__(self, *argv, **how) -> Done: return self.start(*argv, **how).wait()

    def python(self, code: str, **how) -> Done:
        "Python instead of a command."
        return self.start(setup=code, **how).wait()

    def close(self):
        self.process.kill()  # It holds nothing: its children are waited for, each by its test
        self.process.wait()


def redirect(stem):
    for name, number in (('out', 1), ('err', 2)): os.dup2(os.open(f'{stem}.{name}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def child(argv, cwd, env, setup, stem):
    redirect(stem)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have it ignored
    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = ['vdb', *argv]
    try:
        if setup: exec(setup, {'__name__': 'setup'})
        if argv: sys.modules['vdb.cli'].main()
        return 0
    except SystemExit as end: return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1


def leave(status: int):
    "End without taking all that was imported apart, which takes longer than the command did."
    sys.stdout.flush()
    sys.stderr.flush()
    if measured := getattr(sys.modules.get('coverage'), 'Coverage', None):
        if running := measured.current():
            running.stop()
            running.save()
    os._exit(status)


def own_answers():
    "Where the parent answers; whatever else is printed goes to standard error."
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    return answers


def serve(answers):
    "The parent forks and waits as it is asked; in each child, what was asked of it comes out."
    def answer(value): print(value if isinstance(value, str) else json.dumps(value), file=answers, flush=True)
    gc.collect()
    gc.freeze()  # so that a child does not copy all of it when it collects
    answer('ready')
    for line in iter(sys.stdin.readline, ''):
        asked = json.loads(line)
        if 'wait' in asked:
            pid, status = os.waitpid(asked['wait'], asked['options'])
            answer(os.waitstatus_to_exitcode(status) if pid else None)
        elif pid := os.fork(): answer(pid)
        else:
            yield asked
            return


def parent():
    os.environ.update(HF_HUB_OFFLINE='1', MPLBACKEND='agg')
    sys.path.insert(0, str(here))
    answers = own_answers()
    import av, cv2, nbformat, pandas, pyarrow.parquet, torch, tqdm.auto, transformers  # noqa
    import vdb.bench, vdb.cli, vdb.comparison, vdb.external, vdb.reports.pair  # noqa
    from vdb.metrics.base import all_metrics, load_metrics
    from vdb.models.pipelines import declare_missing_torchvision_ops
    declare_missing_torchvision_ops()
    import diffusers, pipelines  # noqa
    for name in ('LTXPipeline', 'AutoencoderKLLTXVideo', 'LTXVideoTransformer3DModel', 'FlowMatchEulerDiscreteScheduler'): getattr(diffusers, name)
    for name in ('T5EncoderModel', 'PreTrainedTokenizerFast'): getattr(transformers, name)
    load_metrics()
    import linecache
    for m in all_metrics(): m.fingerprint()  # reads the sources
    linecache.checkcache = lambda *_: None  # one session sees one version of them, whatever is edited meanwhile
    for asked in serve(answers): leave(child(**asked))


if __name__ == '__main__': parent()
