"""What a researcher does with a run that is there: more prompts by the command that the verdict names, the report's own command again, a metric of one's own, a pipeline's own arguments, a verdict that a script can ask for."""
import json
import shlex
import warnings

import pytest

small = ['--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--threads', 1, '--no-report', '--quiet']
redness = '''
from vdb.metrics.base import metric
@metric(kind='clip', unit='1', direction='higher', range=(0, 1), margin=.02)
def redness(video):
    "The mean of the red channel."
    return video.frames[..., 0].mean()/255
'''


def opened(path):
    from vdb.runs import open_run
    return open_run(str(path))


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('home')
    (home/'mine.py').write_text(redness)
    (home/'cats.txt').write_text('a cat\na dog\n')
    return home


@pytest.fixture(scope='module')
def runs(warm, pipeline, home):
    "Two runs of unequal pipelines on six prompts."
    (home/'six.jsonl').write_text('\n'.join(line for line in open(suite_file('tiny')).read().splitlines()[1:7]))
    for name, steps in (('a', 1), ('b', 2)):
        done = warm('run', pipeline('ltx'), '--suite', 'six.jsonl', '--seeds', 2, '--set', 'decode_noise_scale=0.5', '--metric', 'mine.py:redness', '--metric', 'adherence', '--metric', 'sharpness',
                    '--margin', 'redness=0.3', '--primary', 'redness', '--out', name, *small[:6], '--steps', steps, *small[8:], cwd=home)
        assert done.status == 0, done.err
    return home


def suite_file(name):
    from vdb.files import data_folder
    return data_folder()/'suites'/f'{name}.jsonl'


def test_again_is_the_whole_command_and_opens_the_run(warm, runs):
    "Given as it stands it is accepted by the same folder, and in another one makes the same run."
    from vdb.results import RunFolder, command_of
    before = opened(runs/'a')
    words = shlex.split(command_of(RunFolder(str(runs/'a'))))
    for option, value in (('--set', 'decode_noise_scale=0.5'), ('--primary', 'redness'), ('--margin', 'redness=0.3'), ('--threads', '1'), ('--metric', 'mine.py:redness')):
        assert value in [w for o, w in zip(words, words[1:]) if o == option], (option, words)
    assert words[:2] == ['vdb', 'run'] and '--suite' in words
    here = warm(*words[1:], '--no-report', '--quiet', '--json', cwd=runs)
    assert here.status == 0 and json.loads(here.out)['fingerprint'] == before.fingerprint, here.err
    other = [str(runs/'again') if o == '--out' else w for o, w in zip(words, words[1:])]
    assert warm(*other, '--no-report', '--quiet', cwd=runs).status == 0
    again = opened(runs/'again')
    assert again.fingerprint == before.fingerprint and again.generations['sha256'].tolist() == before.generations['sha256'].tolist()


def test_own_arguments_and_primary_are_part_of_the_protocol(runs):
    run = opened(runs/'a')
    assert run.protocol.settings.extra == dict(decode_noise_scale=0.5) and run.protocol.primary == ('redness',)


def test_an_unknown_argument_or_lever_is_refused_before_anything_is_made(warm, pipeline, home):
    for given, part in ((['--set', 'decode_noise_scal=1'], 'decode_noise_scale'), (['--profile', 'memory_eficient'], 'memory_efficient'), (['--primary', 'sharpnes'], 'sharpnes')):
        done = warm('run', pipeline('ltx'), '--suite', 'cats.txt', '--out', 'refused', *given, *small, cwd=home)
        assert done.status == 2 and part in done.err and len(done.err.strip().splitlines()) == 1, done.err
        assert not (home/'refused').exists()


def test_a_profile_is_recorded_as_applied(warm, pipeline, home):
    done = warm('run', pipeline('ltx'), '--suite', 'cats.txt', '--seeds', 1, '--profile', 'memory_efficient', '--metric', 'sharpness', '--out', 'profile', *small, cwd=home)
    assert done.status == 0, done.err
    plain = warm('run', pipeline('ltx'), '--suite', 'cats.txt', '--seeds', 1, '--metric', 'sharpness', '--out', 'plain', *small, cwd=home)
    run = opened(home/'profile')
    assert plain.status == 0 and run.protocol.profile and not opened(home/'plain').protocol.profile
    assert not set(run.generations['id']) & set(opened(home/'plain').generations['id'])
    assert warm('verify', home/'profile', '--sample', 1).status == 0
    assert warm('run', pipeline('ltx'), '--suite', 'cats.txt', '--seeds', 1, '--metric', 'sharpness', '--out', 'profile', *small, cwd=home).status == 1, 'another profile is another run'


def test_the_verdict_is_about_the_primary_metric_and_a_script_can_ask_for_it(warm, runs):
    done = warm('compare', 'a', 'b', '--no-report', '--json', '--by', 'motion', cwd=runs)
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told['primary'] == ['redness'] == [m['metric'] for m in told['metrics'] if m['primary']] and set(told['groups']) == {'slow', 'fast'}
    [verdict] = [m['verdict'] for m in told['metrics'] if m['primary']]
    assert warm('compare', 'a', 'b', '--no-report', '--fail-on', verdict, cwd=runs).status == 1
    other = 'worse' if verdict != 'worse' else 'better'
    assert warm('compare', 'a', 'b', '--no-report', '--fail-on', other, cwd=runs).status == 0
    assert 'no verdict' in warm('compare', 'a', 'b', '--no-report', '--fail-on', 'bad', cwd=runs).err


def test_not_enough_data_names_the_command_that_adds_prompts(warm, pipeline, home):
    from vdb.comparison import compare
    for name, steps in (('few-a', 1), ('few-b', 2)):
        call = ['run', pipeline('ltx'), '--suite', 'tiny', '--seeds', 1, '--metric', 'adherence', '--out', name]
        assert warm(*call, *small[:6], '--steps', steps, *small[8:], cwd=home).status == 0
    found = compare(str(home/'few-a'), str(home/'few-b'))
    from vdb.comparison import more_prompts
    assert bool(found.advice) == any(r.needs for r in found.deciding) and len(found.advice) in (0, 2)
    advice = [more_prompts(run, 40) for run in (found.a, found.b)]
    assert all('--suite tiny+shapes ' in a and '--seeds 1' in a for a in advice)
    done = warm(*shlex.split(advice[0].partition('vdb ')[2]), '--no-report', '--quiet', '--json', cwd=home)
    assert done.status == 0, done.err
    assert json.loads(done.out)['ok'] >= 40 and opened(home/'few-a').protocol.suite == 'tiny+shapes'
    assert 'more.jsonl' in more_prompts(found.b, 10_000)


def test_a_run_that_grew_says_so(warm, runs, home):
    "Until a verdict is looked at and more is added, its p-value is what it says; then it is not."
    from vdb.reports.model import methods_text
    assert 'was fixed before anything ran' in methods_text(opened(runs/'a')) and not opened(runs/'a').growth_sentence()
    grown = opened(home/'few-a')
    assert 'fixed before' not in methods_text(grown) and 'at first it had 12 prompts, with 1 seed each' in methods_text(grown)
    told = warm('compare', 'few-a', 'few-b', '--no-report', cwd=home)
    assert told.out.count('was extended after it had begun') == 1, told.out


def test_what_is_refused_leaves_the_run_as_it_is(warm, pipeline, runs):
    "A metric of a file is not there when the command that extends the run does not name it."
    before = (runs/'a'/'protocol.json').read_bytes()
    done = warm('run', pipeline('ltx'), '--suite', 'six.jsonl', '--seeds', 3, '--set', 'decode_noise_scale=0.5', '--metric', 'sharpness', '--out', 'a', *small, cwd=runs)
    assert done.status == 1 and 'redness' in done.err and '--metric FILE.py:NAME' in done.err, done.err
    assert (runs/'a'/'protocol.json').read_bytes() == before and not (runs/'a'/'protocols').exists()


def test_own_prompts_are_asked_for_by_the_file(warm, pipeline, home):
    from vdb.comparison import more_prompts
    (home/'own.txt').write_text('a cat\n')
    call = ['run', pipeline('ltx'), '--suite', 'own.txt', '--seeds', 1, '--metric', 'sharpness', '--out', 'own', *small]
    assert warm(*call, cwd=home).status == 0
    told = more_prompts(opened(home/'own'), 3)
    assert 'add 2 prompts to own' in told and '--suite own.txt' in told
    (home/'own.txt').write_text('a cat\na dog\na bird\n')
    assert warm(*call, cwd=home).status == 0 and opened(home/'own').counts['ok'] == 3


def test_a_metric_that_cannot_apply_is_no_row_and_no_failure(warm, pipeline, home):
    done = warm('run', pipeline('ltx'), '--suite', 'cats.txt', '--seeds', 1, '--out', 'cats', *small, cwd=home)
    assert done.status == 0, done.err
    run = opened(home/'cats')
    assert not run.scores['metric'].str.startswith('adherence').any() and run.protocol.primary == ()
    from vdb.reports.model import failures_section
    assert 'No planned clip is missing' in failures_section(run).html
    assert set(run.frames['metric']) == {'sharpness', 'colourfulness'} and len(run.frames) == 2*2*9


def test_clips_that_are_added_to_a_folder_are_scored_alone(tmp_path):
    import numpy as np
    from vdb.core import Video
    from vdb.external import score
    from vdb.media.write import write_video
    def clip(name): write_video(Video(np.random.default_rng(len(name)).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), 8.), tmp_path/'clips'/f'{name}-0.mp4')
    (tmp_path/'clips').mkdir()
    clip('a cat')
    how = dict(out=str(tmp_path/'run'), metrics=['sharpness'], progress=False)
    first = score(tmp_path/'clips', **how).generations
    clip('a red circle')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        grown = score(tmp_path/'clips', **how)
    assert len(grown.generations) == 2 and first['id'][0] in set(grown.generations['id'])
    assert [p.expect is not None for p in grown.protocol.prompts] == [False, True], 'a prompt of the shapes world is known wherever it stands'


def test_a_loaded_pipeline_is_a_model(pipeline, tmp_path):
    import vdb
    from vdb.models.pipelines import as_model, declare_missing_torchvision_ops
    declare_missing_torchvision_ops()
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(pipeline('ltx'))
    run = vdb.run(pipe, ['a cat'], 1, out=str(tmp_path/'run'), metrics=['sharpness'], progress=False, threads=1, steps=1, frames=9, height=32, width=32)
    assert run.counts['ok'] == 1 and run.protocol.settings.steps == 1
    assert vdb.verify(str(tmp_path/'run'), 1, as_model(pipe))['same'].all()
