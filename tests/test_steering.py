"A generation watched, stopped, batched and given arguments of its own, on tiny pipelines of every kind; pipelines that are in memory; profiles."
import inspect

import numpy as np
import pytest

import pipelines
from vdb.core import Cancelled, GenerationError, InputError, Prompt, Settings
from vdb.models.pipelines import as_model, load
from vdb.performance import OptimizationProfile

kinds = sorted(pipelines.builders)
each = pytest.mark.parametrize
red, blue = Prompt('a red circle moves right'), Prompt('a blue square moves left slowly')


@pytest.fixture(scope='module', autouse=True)
def two_threads():
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    from PIL import Image
    file = tmp_path_factory.mktemp('image')/'red.png'
    Image.new('RGB', (32, 32), 'red').save(file)
    return Prompt('', id='red', image=str(file))


def built(kind):
    "A tiny pipeline in memory, and the settings that suit it, with three steps."
    import torch
    from vdb.models.pipelines import declare_missing_torchvision_ops
    declare_missing_torchvision_ops()
    torch.manual_seed(0)
    pipe, settings = pipelines.builders[kind]()
    return pipe, Settings(**settings | dict(steps=3))


def hooks(pipe):
    import torch
    found = [(m._forward_hooks, m._forward_pre_hooks) for p in pipe.components.values() if isinstance(p, torch.nn.Module) for m in p.modules()]
    return sum(len(h) for pair in found for h in pair) + sum(m in vars(pipe.vae) for m in ('encode', 'decode'))


@each('kind', kinds)
def test_a_generation_is_watched_and_stopped_within_a_step(kind, picture):
    import torch
    pipe, settings = built(kind)
    prompt, model, steps = picture if kind == 'svd' else red, as_model(pipe), []
    plain = model.generate(prompt, 0, settings)
    watched = model.generate(prompt, 0, settings, on_step=steps.append)
    assert [(s.index, s.total) for s in steps] == [(0, 3), (1, 3), (2, 3)]
    assert len({tuple(s.latents.shape) for s in steps}) == 1 and all(torch.is_tensor(s.latents) for s in steps)
    assert not torch.equal(steps[0].latents, steps[1].latents)
    assert watched.sha256() == plain.sha256()

    told, evaluations, scheduler, stop = [], [], pipe.scheduler, Cancelled()
    denoiser = getattr(pipe, 'transformer', None) or pipe.unet
    handle = denoiser.register_forward_hook(lambda *_: evaluations.append(len(told)))
    def at_the_second(step):
        told.append(step)
        if step.index == 1: raise stop
    with pytest.raises(Cancelled) as caught: model.generate(prompt, 0, settings, on_step=at_the_second)
    handle.remove()
    assert caught.value is stop and len(told) == 2 and set(evaluations) == {0, 1}, 'the denoiser was asked again'
    assert hooks(pipe) == 0 and pipe.scheduler is scheduler
    assert model.generate(prompt, 0, settings).sha256() == as_model(built(kind)[0]).generate(prompt, 0, settings).sha256() == plain.sha256()


def test_a_scheduler_of_second_order_counts_each_evaluation():
    pipe, settings = built('cogvideox')
    steps = []
    as_model(pipe).generate(red, 0, Settings(scheduler='HeunDiscreteScheduler').filled(settings), steps.append)
    assert [(s.index, s.total) for s in steps] == [(i, 5) for i in range(5)]


def test_other_errors_of_a_watcher_end_the_generation_too():
    pipe, settings = built('ltx')
    def broken(step): raise ZeroDivisionError('mine')
    with pytest.raises(GenerationError, match='mine'): as_model(pipe).generate(red, 0, settings, on_step=broken)
    def interrupted(step): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): as_model(pipe).generate(red, 0, settings, on_step=interrupted)
    assert hooks(pipe) == 0


def test_a_pipeline_of_the_older_kind_is_watched_too():
    "text_to_video_synthesis knows only `callback` and `callback_steps`."
    from vdb.models.pipelines import step_arguments
    class Old:
        scheduler = type('S', (), dict(timesteps=[3, 2, 1]))()
        def __call__(self, prompt, callback=None, callback_steps=1):
            for i in range(3): callback(i, 3 - i, f'latents {i}')
    class Deaf:
        def __call__(self, prompt): ...
    steps = []
    Old()('x', **step_arguments(Old(), steps.append))
    assert [(s.index, s.total, s.latents) for s in steps] == [(i, 3, f'latents {i}') for i in range(3)]
    assert step_arguments(Deaf(), None) == {}
    with pytest.raises(InputError, match='does not tell of its steps'): step_arguments(Deaf(), steps.append)


@each('kind', [k for k in kinds if k != 'svd'])
def test_clips_of_a_batch_are_those_made_alone(kind, capsys):
    pipe, settings = built(kind)
    model, steps = as_model(pipe), []
    alone = [model.generate(p, s, settings) for p, s in ((red, 0), (blue, 0), (red, 1))]
    batch = model.generate_batch([red, blue, red], [0, 0, 1], settings, on_step=steps.append)
    largest = [int(np.abs(a.frames.astype(int) - b.frames).max()) for a, b in zip(alone, batch)]
    with capsys.disabled(): print(f'\n{kind}: largest difference from 0 to 255 between a clip of a batch and the same alone: {largest}')
    assert len(batch) == 3 and len(steps) == 3 and max(largest) <= 2
    apart = [int(np.abs(alone[i].frames.astype(int) - alone[j].frames).max()) for i, j in ((0, 1), (0, 2))]
    assert min(apart) > 20, 'clips that are nearly equal prove nothing'
    assert model.generate_batch([blue], [0], settings)[0].sha256() == alone[1].sha256()


def test_what_cannot_be_a_batch_is_refused(picture):
    pipe, settings = built('svd')
    with pytest.raises(InputError, match='one at a time'): as_model(pipe).generate_batch([picture], [0], settings)
    pipe, settings = built('ltx')
    model = as_model(pipe)
    for prompts, seeds in (([], []), ([red], [0, 1]), ([red, blue], [0])):
        with pytest.raises(InputError, match='a seed for each'): model.generate_batch(prompts, seeds, settings)
    plain = type(pipe).check_inputs
    def only_text(self, prompt, *args, **more):
        if not isinstance(prompt, str): raise ValueError('`prompt` has to be of type `str`')
        return plain(self, prompt, *args, **more)
    pipe.check_inputs = only_text.__get__(pipe)
    with pytest.raises(InputError, match='of type `str`.*one at a time'): model.generate_batch([red, blue], [0, 1], settings)


def test_extra_arguments_reach_the_pipeline_and_the_scheduler():
    pipe, settings = built('ltx')
    model, seen = as_model(pipe), {}
    plain = type(pipe).encode_prompt
    def spied(self, *args, **kwargs):
        seen.update(max_sequence_length=kwargs['max_sequence_length'], shift_terminal=self.scheduler.config.shift_terminal)
        return plain(self, *args, **kwargs)
    pipe.encode_prompt = spied.__get__(pipe)
    usual = model.generate(red, 0, settings)
    assert seen == dict(max_sequence_length=128, shift_terminal=None)
    asked = Settings(extra=dict(max_sequence_length=16, shift_terminal=.3)).filled(settings)
    model.check(asked)
    other = model.generate(red, 0, asked)
    assert seen == dict(max_sequence_length=16, shift_terminal=.3) and other.sha256() != usual.sha256()
    assert model.generate(red, 0, settings).sha256() == usual.sha256(), 'extra arguments stay with their generation'


@each('extra, told', [(dict(shift_termnal=1), 'Did you mean shift_terminal'), (dict(num_frames=9), 'use the setting frames'), (dict(generator=1), 'vdb sets it itself'),
                      (dict(zzzzzzz=1), 'leave it out'), (dict(shift='x'), 'FlowMatchEulerDiscreteScheduler refuses'), (dict(flow_shift=3), 'Did you mean')])
def test_extra_arguments_that_nobody_takes_are_refused_before_a_plan(extra, told):
    pipe, settings = built('ltx')
    with pytest.raises(InputError, match=told): as_model(pipe).check(Settings(extra=extra))


def test_extra_arguments_are_those_of_the_scheduler_that_is_asked_for():
    pipe, settings = built('wan')
    model = as_model(pipe)
    model.check(Settings(scheduler='UniPCMultistepScheduler', extra=dict(flow_shift=3.)))
    with pytest.raises(InputError, match='takes flow_shift'): model.check(Settings(extra=dict(flow_shift=3.)))


def test_a_card_may_hold_extra_arguments(tmp_path):
    from vdb.models.cards import read_card
    card = tmp_path/'mine.json'
    card.write_text('{"hub": "owner/name", "settings": {"steps": 3, "extra": {"shift": 3.0}}}')
    assert read_card('mine', card).settings == Settings(steps=3, extra=dict(shift=3.))
    card.write_text('{"hub": "owner/name", "settings": {"extra": {"shift": {}}}}')
    with pytest.raises(InputError, match='extra.shift'): read_card('mine', card)


def test_equal_pipelines_have_one_fingerprint_and_a_changed_weight_another(pipeline):
    import torch
    from diffusers import DiffusionPipeline
    (one, _), (two, _) = built('ltx'), built('ltx')
    assert as_model(one).fingerprint() == as_model(two).fingerprint()
    assert as_model(one).name == 'LTXPipeline'
    with torch.no_grad(): next(two.vae.parameters()).view(-1)[0] += 1e-3
    assert as_model(one).fingerprint()['weights'] != as_model(two).fingerprint()['weights']

    saved = as_model(DiffusionPipeline.from_pretrained(pipeline('ltx')))
    assert saved.name == 'ltx' and saved.weights == as_model(one).weights, 'saved and loaded, it is the same'
    two = built('ltx')[0]
    two.vae.register_to_config(scaling_factor=2.)
    assert as_model(one).weights != as_model(two).weights, 'a part that is configured otherwise makes other pixels'
    half = built('ltx')[0].to(torch.bfloat16)
    assert as_model(half).fingerprint()['dtypes'] != as_model(one).fingerprint()['dtypes']


def test_a_pipeline_object_is_left_as_it_came():
    pipe, settings = built('ltx')
    pipe.set_progress_bar_config(desc='mine')
    bars, plain = [], type(pipe).progress_bar
    def spied(self, *args, **kwargs):
        bars.append(dict(self._progress_bar_config))
        return plain(self, *args, **kwargs)
    pipe.progress_bar = spied.__get__(pipe)
    as_model(pipe).generate(red, 0, settings)
    assert bars == [dict(disable=True)] and pipe._progress_bar_config == dict(desc='mine')


def test_what_is_a_model_passes_and_anything_else_is_refused():
    class Mine:
        name, defaults = 'mine', Settings()
        def generate(self, prompt, seed, settings): ...
        def fingerprint(self): return {}
    mine = Mine()
    assert as_model(mine) is mine
    with pytest.raises(InputError, match='a model already'): as_model(mine, profile=dict(memory_efficient=True))
    for wrong in (3, 'tiny', None, object()):
        with pytest.raises(InputError, match='expected a diffusers pipeline'): as_model(wrong)
    from diffusers import DiffusionPipeline
    class Silent(DiffusionPipeline):
        def __init__(self, scheduler):
            super().__init__()
            self.register_modules(scheduler=scheduler)
        def __call__(self, prompt): ...
    with pytest.raises(InputError, match='makes no video'): as_model(Silent(built('ltx')[0].scheduler))


@each('kind', kinds)
def test_a_profile_is_applied_or_refused(kind, pipeline, picture):
    if kind == 'svd':
        with pytest.raises(InputError, match='neither slicing nor tiling'): as_model(built(kind)[0], profile=dict(memory_efficient=True))
        return
    pipe, settings = built(kind)
    plain = as_model(pipe)
    assert plain.profile == {} and not (pipe.vae.use_slicing or pipe.vae.use_tiling)
    clip = plain.generate(red, 0, settings)
    model = load(str(pipeline(kind)), profile=OptimizationProfile(memory_efficient=True))
    assert model.profile == dict(memory_efficient=['slicing', 'tiling']) and model.pipe.vae.use_slicing and model.pipe.vae.use_tiling
    assert model.generate(red, 0, settings).sha256() == clip.sha256(), 'below the size of a tile nothing changes'


def test_signatures():
    "What others call by position."
    from vdb.models.pipelines import DiffusersModel
    assert list(inspect.signature(DiffusersModel.generate).parameters) == ['self', 'prompt', 'seed', 'settings', 'on_step']
    assert list(inspect.signature(DiffusersModel.generate_batch).parameters) == ['self', 'prompts', 'seeds', 'settings', 'on_step']
