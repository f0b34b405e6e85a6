"""In the pseudo-locale every sentence that went through `vdb.i18n` has accents on its vowels: a sentence with plain ones is a raw string."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

script = Path(sys.executable).parent/'vdb'
commands = ['', 'run', 'score', 'compare', 'report', 'show', 'verify', 'bench', 'doctor']
of_typer = ['[OPTIONS] COMMAND [ARGS]', 'Show this message and exit', '[OPTIONS]']  # typer's own words: not ours to translate


def raw_sentences(text: str) -> list[str]:
    "Runs of three words or more in plain English letters, at least two of which have a vowel that the pseudo-locale would have changed."
    for known in of_typer: text = text.replace(known, '|')
    text = re.sub(r'\s+', ' ', text)  # sentences are wrapped
    found = re.findall(r"(?:(?<![\w/.=⟦-])[A-Za-z][A-Za-z']*[,;:]? ){2,}[A-Za-z][A-Za-z']*(?![\w/.=-]*[/=_])", text)
    return [x for x in found if sum(bool(re.search('[aeiouAEIOU]', w)) for w in x.split()) >= 3]


def test_raw_sentences_are_seen():
    assert raw_sentences('⟦Thîs îs fîñé⟧ but this one is raw') == ['but this one is raw']
    assert raw_sentences('⟦Thîs îs fîñé⟧: wan2.1 on shapes --steps 20 runs/a') == []


@pytest.mark.parametrize('command', commands)
def test_help(command):
    done = subprocess.run([script, *command.split(), '--help'], env={**os.environ, 'VDB_LOCALE': 'qps', 'COLUMNS': '300'}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and '⟦' in done.stdout and not done.stderr
    assert raw_sentences(done.stdout) == []


speak = "from vdb.i18n import set_locale; set_locale('qps')"


@pytest.fixture(scope='module')
def run_folder(warm, pipeline, tmp_path_factory):
    home = tmp_path_factory.mktemp('home')
    (home/'suite.txt').write_text('red\nblue\ngreen\n')
    for out, steps in (('a', 1), ('b', 2)):
        done = warm('run', pipeline('ltx'), '--suite', 'suite.txt', '--seeds', 2, '--frames', 9, '--height', 32, '--width', 32, '--steps', steps, '--threads', 1, '--no-report', '--out', out, cwd=home, setup=speak)
        assert done.status == 0, done.err
        assert raw_sentences(done.out) == [] and '⟦' in done.out
    return home


@pytest.mark.parametrize('argv', [['show', 'a'], ['compare', 'a', 'b', '--no-report'], ['verify', 'a', '--sample', '1']])
def test_answers(warm, run_folder, argv):
    done = warm(*argv, cwd=run_folder, setup=speak)
    assert done.status == 0 and '⟦' in done.out, done.err
    assert raw_sentences(done.out + done.err) == []


@pytest.mark.parametrize('argv', [['run', 'no-such-model'], ['run', 'no-such-model', '--suite', 'no-such-suite'], ['run', 'x', '--suite', 'suite.txt', '--metric', 'x'], ['run', 'x', '--suite', 'suite.txt', '--seeds', '1.5'],
                                  ['show', 'nowhere'], ['score', 'nowhere'], ['run', 'x', '--suite', 'suite.txt', '--frames', '0'], ['compare', 'a', 'nowhere'], ['verify', 'nowhere']])
def test_errors(warm, run_folder, argv):
    done = warm(*argv, cwd=run_folder, setup=speak)
    assert done.status and done.err.startswith('vdb: ⟦'), done.err
    assert raw_sentences(done.err) == []
