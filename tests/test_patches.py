"A patch on real pipelines with random weights: of one stream and of two, called once a step and twice; found by a search, loaded and run; and what is refused."
import numpy as np
import pipelines
import pytest
from vdb.core import Cancelled, InputError, Prompt, Settings
from vdb.models.pipelines import DiffusersModel, as_model, declare_missing_torchvision_ops, load
from vdb.patches import Patch, apply_patch, blocks_of

declare_missing_torchvision_ops()

prompt, passes = Prompt('a red circle moves right'), dict(ltx=1, wan=2, cogvideox=1)  # The prompt and its absence in one batch, or one after the other


@pytest.fixture(params=passes)
def kind(request): return request.param


class Watched:
    "A small pipeline with three blocks that notes what goes in and comes out of each."
    def __init__(self, kind: str) -> None:
        import torch
        torch.manual_seed(0)
        self.pipe, asked = getattr(pipelines, kind)(3)
        self.model, self.settings, self.seen = DiffusersModel(self.pipe, kind), Settings(**asked, guidance=3.), []
        self.blocks = blocks_of(self.pipe)

    def patched(self, *schedule: str, width=()) -> 'Watched':
        apply_patch(self.pipe, Patch(schedule, width))
        for i, block in enumerate(self.blocks):  # Over the patch: what the next block is given
            block.register_forward_hook(lambda _, args, kwargs, out, i=i: self.seen.append((i, self.streams(args, kwargs), out if isinstance(out, tuple) else (out,))), with_kwargs=True)
        return self

    def streams(self, args, kwargs):
        return tuple(v for v in (kwargs.get('hidden_states', args[0] if args else None), kwargs.get('encoder_hidden_states') if type(self.pipe).__name__ == 'CogVideoXPipeline' else None) if v is not None)

    def frames(self, **more):
        self.seen.clear()
        import torch
        given = dict(prompt=prompt.text, generator=torch.Generator().manual_seed(0))
        return self.model.frames_of(given, self.settings.filled(self.model.defaults), **more)


def test_what_runs_is_as_without_a_patch(kind):
    whole = Watched(kind).frames()
    np.testing.assert_array_equal(Watched(kind).patched('###', '=.=', '###', '.==').frames(), whole)  # Of four rows two steps use the first and the third
    changed = Watched(kind).patched('###', '=.#').frames()
    assert changed.shape == whole.shape and np.isfinite(changed).all() and abs(changed - whole).max() > 1e-4


def test_a_block_adds_what_it_added(kind):
    watched, n = Watched(kind).patched('###', '=.#'), passes[kind]
    watched.frames()
    calls = [[(before, after) for i, before, after in watched.seen if i == k] for k in range(3)]
    assert [len(c) for c in calls] == [2*n]*3
    for (before, after), (earlier, then) in zip(calls[0][n:], calls[0][:n]):  # The same pass, one step before
        assert len(before) == len(after) == (2 if kind == 'cogvideox' else 1)
        for b, a, e, t in zip(before, after, earlier, then): assert abs((a - b) - (t - e)).max() < 1e-5 and abs(a - b).max() > 1e-3
    for before, after in calls[1][n:]: assert all((a == b).all() for a, b in zip(after, before))
    for before, after in calls[2][n:]: assert all(abs(a - b).max() > 1e-3 for a, b in zip(after, before))


def test_a_group_adds_once(kind):
    "Two blocks as one group add together what both added, and one state of them is kept."
    single, group = Watched(kind).patched('###', '==='), Watched(kind).patched('#', '=')
    np.testing.assert_allclose(group.frames(), single.frames(), atol=2e-3)
    assert not np.array_equal(group.frames(), Watched(kind).patched('#', '.').frames())


def test_nothing_stays_from_one_clip_to_the_next():
    watched = Watched('ltx').patched('###', '==#')
    first = watched.frames()
    def stop(step): raise Cancelled('enough')
    with pytest.raises(Cancelled): watched.frames(on_step=stop)
    np.testing.assert_array_equal(watched.frames(), first)


def test_a_pipeline_that_has_run_is_patched(kind):
    watched = Watched(kind)
    watched.frames()
    model = as_model(watched.pipe, dict(patch=dict(schedule=['###', '=.#'])))
    assert model.profile == dict(patch=dict(schedule=['###', '=.#']))
    model.generate_batch([prompt], [0], watched.settings)
    with pytest.raises(InputError, match='has one already'): as_model(watched.pipe, dict(patch=dict(schedule=['#', '='])))


def test_what_a_pipeline_has_is_recorded():
    watched = Watched('ltx').patched('###', '=.#')
    assert as_model(watched.pipe).profile == dict(patch=dict(schedule=['###', '=.#']))
    assert as_model(Watched('ltx').pipe).profile == {}


def test_a_stream_is_patched():
    "Its blocks are made by another pipeline, which shares the denoiser."
    from vdb.streaming.continuation import as_streaming
    model, ran = load('tiny', profile=dict(patch=dict(schedule=['######', '==#==='], model='tiny'))), [0]*6
    for i, block in enumerate(blocks_of(model.pipe)):
        def counted(*_, i=i): ran[i] += 1
        block.attn1.register_forward_pre_hook(counted)
    stream, settings = as_streaming(model), Settings(frames=9, height=32, width=32, steps=4)
    frames = stream.first(prompt, 0, settings)
    assert ran == [2, 2, 4, 2, 2, 2]
    stream.extend(frames, prompt, 0, settings)
    assert ran == [4, 4, 8, 4, 4, 4]


def test_a_narrower_block_is_smaller(kind):
    watched = Watched(kind)
    before = watched.frames()
    weights = sum(w.numel() for w in watched.pipe.transformer.parameters())
    assert abs(watched.patched('#', width=(.5,)).frames() - before).max() > 1e-4
    assert sum(w.numel() for w in watched.pipe.transformer.parameters()) < weights


def test_what_is_refused(tmp_path):
    pipe = Watched('ltx').pipe
    for patch, told in ((dict(schedule=['####', '===#']), '4 groups of blocks, and the denoiser 3 blocks'), (dict(schedule=['#x']), "'x'")):
        with pytest.raises(InputError, match=told): as_model(pipe, dict(patch=patch))
    with pytest.raises(InputError, match='no row of blocks'): as_model(pipelines.svd()[0], dict(patch=dict(schedule=['#', '='])))
    from diffusers import WanVideoToVideoPipeline
    parts = {k: v for k, v in pipelines.wan(3)[0].components.items() if k != 'transformer_2'}
    with pytest.raises(InputError, match='does not say which pass'): blocks_of(WanVideoToVideoPipeline(**parts))
    with pytest.raises(InputError, match='found for another with the weights 0123'): load('tiny', profile=dict(patch=dict(schedule=['#', '='], model='another', weights='0123')))
    with pytest.raises(InputError, match='nowhere.json'): load('tiny', profile=dict(patch=tmp_path/'nowhere.json'))
    (tmp_path/'patch.json').write_text('{"schedule": [')
    with pytest.raises(InputError, match='is no JSON'): load('tiny', profile=dict(patch=tmp_path/'patch.json'))
