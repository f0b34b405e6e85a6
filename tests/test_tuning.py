"A search, as a user has it: `vdb tune`, its report, its trial store, a search that is killed again and again, and bad input."
import json
import random
import shlex
import sqlite3
import time

import pytest

small = ['--suite', 'tiny', '--prompts', 3, '--frames', 9, '--recheck-seeds', 1, '--unseen-seeds', 1, '--steps', 16, '--threads', 1, '--margin', 'adherence=0.9', '--quiet']


@pytest.fixture
def space(tmp_path):
    file = tmp_path/'space.json'
    file.write_text(json.dumps(dict(parameters=dict(steps=dict(kind='integer', low=2, high=4), guidance=dict(kind='real', low=1, high=5)))))
    return file


def test_the_command_and_its_report(warm, space, tmp_path):
    "One JSON object, a page, a store that Optuna opens, and a command that runs what is recommended; the same call again makes nothing."
    out = tmp_path/'search'
    call = ['tune', 'tiny', '--minimize', 'latency', '--maximize', 'adherence', '--constraint', 'memory_gb < 64', '--budget', 2, '--space', space, '--out', out, '--json', '--no-report', *small]
    done = warm(*call)
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert (said['trials'], said['failed'], said['report'], said['choices_judged']) == (3, 0, None, 1)
    assert 2 <= said['settings']['steps'] <= 4 and said['unseen'][0]['ratio'] < 1, 'a fourth of the steps'
    assert said['held_up'] and said['verdicts'] in ({'adherence': 'not worse'}, {'adherence': 'better'}), 'the margin is nearly all there is'
    told = warm('report', out)
    assert told.status == 0 and f'{out}/report.html' in told.out, told.err
    page = (out/'report.html').read_text(encoding='utf-8')
    for text in ('tiny, tuned', 'Recommended: steps', 'On 9 prompts that the search had not seen', 'To use it: vdb run tiny', 'Made again with other seeds', 'Where they differ most'): assert text in page, text
    assert page.count('data:image/png') == 4 and 'Traceback' not in page

    import optuna
    study = optuna.load_study(study_name='vdb', storage=f'sqlite:///{out}/study.db')
    assert [trial.state.name for trial in study.trials] == ['COMPLETE']*3 and study.metric_names == ['latency', 'adherence']
    assert {trial.number for trial in study.best_trials} == set(said['front'])
    from vdb.optimize.tuning import open_tuning
    found = open_tuning(str(out))
    prompts = [{p.id for p in some} for some in (found.plan.prompts, found.plan.unseen)]
    assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 12
    rows = found.run_of(found.trials[2]).generations
    assert set(rows['prompt']) == prompts[0] and set(rows['seed']) == {0}
    unseen = found.confirmation.chosen.generations
    assert set(unseen['prompt']) == prompts[1] and set(unseen['seed']) == {2}
    assert warm('verify', f'{out}/trials/0002', '--sample', 1).status == 0, 'a trial is a run like any other'

    before = sorted(p for p in out.rglob('*') if p.suffix in ('.parquet', '.mp4'))
    again = warm(*call)
    assert json.loads(again.out) == said and sorted(p for p in out.rglob('*') if p.suffix in ('.parquet', '.mp4')) == before
    shown = warm('show', out)
    assert shown.status == 0 and 'Recommended: steps' in shown.out
    told = warm('report', out, '--kind', 'model_report')
    assert told.status == 2 and 'no report on a search is called model_report' in told.err

    program, *argv = shlex.split(said['command'])
    used = warm(*argv[:argv.index('--out')], '--suite', 'tiny', '--seeds', 1, '--out', tmp_path/'used', '--no-report', '--quiet')
    assert program == 'vdb' and used.status == 0, used.err
    kept = json.loads((tmp_path/'used'/'protocol.json').read_text())['settings']
    assert {k: kept[k] for k in said['settings']} == said['settings'] and kept['frames'] == 9

    with sqlite3.connect(out/'study.db') as store: store.execute('drop table trials')
    done = warm(*call)
    assert done.status == 1 and 'no trial store that can be used' in json.loads(done.out)['message'] and 'Traceback' not in done.err, done.err


def test_a_search_that_is_killed_ends_like_one_that_is_not(warm, space, tmp_path):
    "Quality does not hang on the clock: trials, scores, clips and the choice are the same."
    def call(name): return ['tune', 'tiny', '--maximize', 'adherence', '--budget', 3, '--strategy', 'optuna:TPESampler', '--space', space, '--out', tmp_path/name, '--no-report', '--json', *small, '--steps', 2, '--guidance', 1]  # Poor ones, so that something is better
    whole, kills, rng = warm(*call('whole')), 0, random.Random(0)
    assert whole.status == 0, whole.err
    for n in range(40):
        running = warm.start(*call('killed'))
        began, most = time.monotonic(), rng.uniform(.3, 2.5) if n < 6 else 600
        while time.monotonic() - began < most and not running.ended(): time.sleep(.02)
        if running.ended(): break
        running.kill_after(0)
        kills += 1
    done = running.wait()
    assert done.status == 0 and kills >= 3, (kills, done.err)
    from vdb.optimize.tuning import open_tuning
    a, b = (open_tuning(str(tmp_path/name)) for name in ('whole', 'killed'))
    def told(found): return [(x.number, x.config, x.origin, x.outcome.values, {k: v for k, v in x.outcome.by_prompt.items() if k not in ('latency', 'throughput')}) for x in found.trials]
    assert told(a) == told(b)
    for x in a.trials:
        clips = [found.run_of(x).generations[['prompt', 'seed', 'sha256']].values.tolist() for found in (a, b)]
        assert clips[0] == clips[1]
    first, second = (json.loads(x.out) for x in (whole, done))
    assert {k: first[k] for k in ('recommended', 'settings', 'front', 'verdicts', 'unseen')} == {k: second[k] for k in ('recommended', 'settings', 'front', 'verdicts', 'unseen')}


@pytest.mark.parametrize('wrong, told', [
    ([], 'nothing is to be bettered'), (['--minimize', 'latency', '--budget', 0], 'the budget is 0'), (['--minimize', 'latencie'], 'Did you mean latency'),
    (['--maximize', 'latency'], 'minimize it'), (['--minimize', 'latency', '--constraint', 'memory_gb is small'], "such as 'memory_gb < 8'"),
    (['--minimize', 'latency', '--strategy', 'optuna:TPE'], 'Did you mean TPESampler'), (['--minimize', 'latency', '--space', 'nowhere.json'], 'nowhere.json'),
    (['--minimize', 'latency', '--prompts', 59], 'kept back for a verdict'), (['--minimize', 'latency', '--set', 'nothing=1'], 'takes nothing')])
def test_bad_input(warm, tmp_path, wrong, told):
    done = warm('tune', 'tiny', *wrong, '--out', tmp_path/'search')
    assert done.status == 2 and told in done.err and len(done.err.strip().splitlines()) == 1, done.err
    assert not (tmp_path/'search').exists()


def test_a_patch_is_found_and_loaded(warm, tmp_path):
    "Which blocks run at which step: a choice that held up lies in `patch.json`, which a model is loaded with and which makes the same clips."
    out, few = tmp_path/'search', ['--suite', 'tiny', '--prompts', 3, '--frames', 5, '--recheck-seeds', 1, '--unseen-seeds', 1, '--threads', 1, '--margin', 'adherence=0.9', '--quiet']
    done = warm('tune', 'tiny', '--minimize', 'latency', '--space', 'architecture', '--budget', 3, '--out', out, '--json', '--no-report', *few)
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert (said['trials'], said['failed']) == (4, 0)
    assert (out/'patch.json').exists() == bool(said['held_up'] and said['settings']), 'whether a patch is faster for sure, two warm clips may not tell'

    from types import SimpleNamespace
    from unittest import mock
    import torch
    from vdb.core import Settings
    from vdb.models.pipelines import load
    from vdb.optimize.search import _save_patch
    from vdb.optimize.tuning import Tuning, open_tuning
    found = open_tuning(str(out))
    trial, prompt = found.trials[1], found.plan.prompts[0]
    assert found.plan.strategy == 'architecture' and len(found.trials[1].config) == 54
    for held_up in (True, False, True):
        with mock.patch.object(Tuning, 'recommended', trial), mock.patch.object(Tuning, 'confirmation', SimpleNamespace(held_up=held_up)): _save_patch(found)
        assert (out/'patch.json').exists() == held_up, 'what did not hold up is not left for anyone to load'
    patch = json.loads((out/'patch.json').read_text())
    assert patch['schedule'] == ['######', '======']*4 and (patch['model'], patch['weights']) == ('tiny', found.plan.model['weights']), 'the first trial is regular'

    torch.set_num_threads(1)
    clip = load('tiny', profile=dict(patch=out/'patch.json')).generate(prompt, 0, Settings(frames=5))
    assert clip.sha256() == found.run_of(trial).video(prompt.id, 0).sha256() != load('tiny').generate(prompt, 0, Settings(frames=5)).sha256()

    again = warm('run', 'tiny', '--profile', f'patch={out}/patch.json', '--suite', 'tiny', '--frames', 5, '--seeds', 1, '--threads', 1, '--out', tmp_path/'used', '--no-report', '--quiet')
    assert again.status == 0, again.err
    assert json.loads((tmp_path/'used'/'protocol.json').read_text())['profile'] == dict(patch=dict(schedule=patch['schedule']))

    assert warm('tune', 'tiny', '--minimize', 'latency', '--strategy', 'architecture', '--out', tmp_path/'none').status == 2
