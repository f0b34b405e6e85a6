"What a new metric, model, suite or report costs: one small file, of this package or of another one that is installed."
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

here = Path(__file__).resolve().parent


@pytest.fixture(scope='module')
def site(pipeline, tmp_path_factory):
    "The package in `tests/plugin`, installed by pip into a folder of its own, with weights for its model card."
    source, site = tmp_path_factory.mktemp('plugin')/'source', tmp_path_factory.mktemp('site')
    shutil.copytree(here/'plugin', source)
    shutil.copytree(pipeline('ltx'), source/'vdb_plugin_example'/'weights')
    text = (source/'setup.py').read_text().replace("'reports/*'", "'reports/*', 'weights/*', 'weights/*/*'")
    (source/'setup.py').write_text(text)
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '--no-index', '--target', site, source]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return site


def with_plugin(site): return dict(setup=f'import sys; sys.path.insert(0, {str(site)!r})\nfrom vdb.metrics.base import load_metrics; load_metrics.cache_clear()', env=dict(PYTHONPATH=str(site)))


def test_four_files_of_another_package_take_part(warm, site, tmp_path):
    how = with_plugin(site)
    done = warm('run', 'toy', '--suite', 'two', '--seeds', 1, '--threads', 1, '--metric', 'redness', '--metric', 'temporal_flicker', '--out', 'run', '--quiet', cwd=tmp_path, **how)
    assert done.status == 0, done.err
    assert 'broken.json' in done.err and 'Traceback' not in done.err, 'a card that cannot be used costs a warning, not the others'
    protocol = json.loads((tmp_path/'run'/'protocol.json').read_text())
    assert (protocol['suite'], protocol['model']['name'], protocol['settings']['frames']) == ('two', 'toy', 9)
    assert protocol['margins']['redness'] == .01
    shown = warm('show', 'run', '--json', cwd=tmp_path, **how)
    assert 'redness' in {e['metric'] for e in json.loads(shown.out)['estimates']}
    assert 'redness' in (tmp_path/'run'/'report.html').read_text()
    made = warm('report', 'run', '--kind', 'how_red', cwd=tmp_path, **how)
    assert made.status == 0, made.err
    page = (tmp_path/'run'/'how_red.html').read_text()
    assert '<title>toy in red</title>' in page and 'How red' in page and 'redness' in page


def test_names_of_a_plugin_are_offered_and_those_of_vdb_are_kept(warm, site, tmp_path):
    for argv, near in ((['run', 'toyy', '--suite', 'tiny'], 'toy'), (['run', 'tiny', '--suite', 'twos'], 'two')):
        done = warm(*argv, cwd=tmp_path, **with_plugin(site))
        assert done.status == 2 and f'Did you mean {near}' in done.err, done.err
    (site/'vdb_plugin_example'/'suites'/'tiny.jsonl').write_text('{"text": "an impostor"}\n')
    code = "from vdb.prompts.suites import load_suite; print(len(load_suite('tiny').prompts))"
    try: done = warm.python(with_plugin(site)['setup'] + '\n' + code)
    finally: (site/'vdb_plugin_example'/'suites'/'tiny.jsonl').unlink()
    assert done.status == 0 and int(done.out) > 1 and 'is left out' in done.err, done.err


def test_a_controller_of_a_plugin(warm, site):
    code = """from vdb.core import Settings
from vdb.streaming.control import AdaptiveQualityController, Level, load_controllers, StreamState
ladder = tuple(Level(Settings(), 1, 4, .1*n, .1*n) for n in (1, 2, 3))
print(load_controllers(), AdaptiveQualityController(ladder, 'halfway').choose(StreamState(.1, .2, .3, 0, .1)))"""
    done = warm.python(with_plugin(site)['setup'] + '\n' + code)
    assert done.status == 0 and done.out.strip() == "['bola', 'fixed', 'halfway', 'pid', 'rate'] 1", done.err + done.out


def test_a_strategy_of_a_plugin(warm, site):
    code = """from vdb.optimize.space import Integer, Space
from vdb.optimize.strategies import load_strategies, new_strategy
search = new_strategy('corner', Space(dict(steps=Integer(2, 8))), (), 0)
print('corner' in load_strategies(), search.ask(), search.ask())"""
    done = warm.python(with_plugin(site)['setup'] + '\n' + code)
    assert done.status == 0 and done.out.strip() == "True {'steps': 2} None", done.err + done.out


def test_without_it_nothing_of_it_is_there(warm, tmp_path):
    done = warm('run', 'toy', '--suite', 'two', cwd=tmp_path)
    assert done.status == 2
