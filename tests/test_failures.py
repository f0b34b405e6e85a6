"""A generation that fails is a row with a reason, the run goes on, and the denominators are the plan's. Four kinds of pipeline go through `vdb run`."""
import json
import shutil

import numpy as np
import pytest

common = ['--seeds', 2, '--threads', 1, '--no-report', '--quiet', '--json']

faults = '''
import functools, torch, numpy as np
from diffusers import LTXPipeline
plain = LTXPipeline.__call__
@functools.wraps(plain)
def faulty(self, prompt=None, **how):
    if prompt == 'memory': raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 3.00 GiB')
    if prompt == 'host memory': raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if prompt == 'bug': raise KeyError('a bug\\nof two lines')
    out = plain(self, prompt=prompt, **how)
    if prompt == 'nan': out.frames[0, 2, 3, 4, 1] = np.nan
    if prompt == 'infinite': out.frames[0, 2, 3, 4, 1] = np.inf
    if prompt == 'black': out.frames[:] = 0
    if prompt == 'nothing': out.frames = out.frames[:, :0]
    return out
LTXPipeline.__call__ = faulty
'''
expected = {'a red circle': ('ok', ''), 'memory': ('failed', 'out_of_memory: '), 'host memory': ('failed', 'out_of_memory: '), 'bug': ('failed', 'exception: '),
            'nan': ('failed', 'nan_frames: 1 of '), 'infinite': ('failed', 'nan_frames: 1 of '), 'black': ('failed', 'black_clip: '), 'nothing': ('failed', 'exception: '),
            'on black': ('ok', '')}


def opened(path):
    from vdb.runs import open_run
    return open_run(str(path))


def test_each_failure_is_its_own_row(warm, pipeline, tmp_path):
    suite, out = tmp_path/'suite.txt', tmp_path/'run'
    suite.write_text('\n'.join(expected))
    command = ['run', pipeline('ltx'), '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', out, *common]
    done = warm(*command, setup=faults)
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert (said['ok'], said['failed'], said['skipped'], said['planned']) == (4, 14, 0, 0)
    run = opened(out)
    text = {p.id: p.text for p in run.protocol.prompts}
    assert len(run.generations) == 18 == len(run.protocol.plan())
    for row in run.generations.itertuples():
        status, reason = expected[text[row.prompt]]
        assert row.status == status and row.reason.startswith(reason), row
        assert '\n' not in row.reason and len(row.reason) < 400
        assert bool(row.path) == bool(row.sha256) == (status == 'ok')
    assert len(list((out/'videos').iterdir())) == 4
    s = run.scores
    assert len(s) == 18*len(run.protocol.metrics), 'a row a planned cell and metric'
    failed = s[s['prompt'].map(text).map(lambda x: expected[x][0]) == 'failed']
    assert failed['value'].isna().all() and (failed['status'] == 'failed').all() and failed['reason'].str.contains('no video').all()
    show = json.loads(warm('show', out, '--json').out, parse_constant=lambda name: pytest.fail(f'{name} is not JSON'))
    assert {e['planned'] for e in show['estimates']} == {18} and {e['clips'] for e in show['estimates'] if e['metric'] == 'temporal_flicker'} == {4}
    again = warm(*command)  # without the faults: what has failed stays as it is
    assert json.loads(again.out) == said


@pytest.mark.parametrize('what, reason', [('nan', 'nan_frames'), ('black', 'black_clip')])
def test_weights_that_make_no_picture(warm, pipeline, tmp_path, what, reason):
    from safetensors.numpy import load_file, save_file
    model, out, suite = tmp_path/'model', tmp_path/'run', tmp_path/'s.txt'
    shutil.copytree(pipeline('ltx'), model)
    suite.write_text('a red circle\na blue square')
    file = next((model/'vae').glob('*.safetensors'))
    weights = load_file(file)
    for part in ('weight', 'bias'):
        name = f'decoder.conv_out.conv.{part}'
        weights[name] = np.full_like(weights[name], np.nan if what == 'nan' else -9 if part == 'bias' else 0)
    save_file(weights, file, metadata={'format': 'pt'})
    done = warm('run', model, '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', out, *common)
    assert done.status == 1, 'nothing came out of this run'
    assert json.loads(done.out)['failed'] == 4
    assert opened(out).generations['reason'].str.startswith(reason).all()


@pytest.mark.parametrize('part', ['transformer', 'text_encoder'])
def test_weights_that_are_not_numbers(warm, pipeline, tmp_path, part):
    from safetensors.numpy import load_file, save_file
    model, out, suite = tmp_path/'model', tmp_path/'run', tmp_path/'s.txt'
    shutil.copytree(pipeline('ltx'), model)
    suite.write_text('a red circle\na blue square')
    file = next((model/part).glob('*.safetensors'))
    save_file({k: np.full_like(v, np.nan) for k, v in load_file(file).items()}, file, metadata={'format': 'pt'})
    done = warm('run', model, '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', out, *common[:-1])
    assert done.status == 1 and 'no clip came of it: nan_frames: ' in done.err and '(4 of 4 cells)' in done.err, done.err
    assert len(done.err.splitlines()) == 1
    assert opened(out).generations['reason'].str.startswith('nan_frames').all()


@pytest.mark.parametrize('part', ['transformer', 'vae', 'text_encoder'])
def test_a_model_that_lacks_tensors_is_refused(warm, pipeline, tmp_path, part):
    "Libraries fill them with random numbers, or with none: neither is the model that was asked for."
    from safetensors.numpy import load_file, save_file
    model, suite = tmp_path/'model', tmp_path/'s.txt'
    shutil.copytree(pipeline('ltx'), model)
    suite.write_text('a red circle')
    file = next((model/part).glob('*.safetensors'))
    save_file(dict(list(load_file(file).items())[3:]), file, metadata={'format': 'pt'})
    done = warm('run', model, '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', tmp_path/'run', *common[:-1])
    assert done.status == 2 and len(done.err.splitlines()) == 1, done.err
    assert 'lacks 3 tensors' in done.err and f'{part}.' in done.err
    assert not (tmp_path/'run').exists()


def test_a_clip_that_cannot_be_stored_is_not_the_models_failure(warm, pipeline, tmp_path):
    suite, out = tmp_path/'s.txt', tmp_path/'run'
    suite.write_text('a red circle')
    fault = '''
import vdb.bench
def encoded(*_): raise RuntimeError('the encoder gave up')
vdb.bench.encoded = encoded
'''
    call = ['run', pipeline('ltx'), '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', out, *common[:-1]]
    done = warm(*call, setup=fault)
    assert done.status == 1 and 'not_stored: the clip could not be stored: RuntimeError: the encoder gave up' in done.err, done.err
    assert 'the model raised' not in opened(out).generations['reason'].iloc[0]
    assert warm(*call).status == 1, 'a failure is a result'
    assert warm(*call, '--retry', 'failed').status == 0
    assert opened(out).counts['ok'] == 2


def test_a_metric_without_a_better_side_shows_clips(warm, pipeline, tmp_path):
    suite, out = tmp_path/'s.txt', tmp_path/'run'
    suite.write_text('a red circle')
    call = ['run', pipeline('ltx'), '--suite', suite, '--frames', 9, '--height', 32, '--width', 32, '--steps', 1, '--out', out]
    done = warm(*call, '--metric', 'colourfulness', '--seeds', 2, '--threads', 1, '--quiet')
    assert done.status == 0 and not done.err, done.err
    assert (out/'report.html').read_text().count('<video') == 2


def test_more_memory_than_there_is(warm, pipeline, tmp_path):
    "The process may have 400 MB more than it has, and the clip needs some GB."
    suite, out = tmp_path/'s.txt', tmp_path/'run'
    suite.write_text('a red circle')
    limit = ('import ctypes, resource; ctypes.CDLL(None).mallopt(-8, 1)\n'  # Else a thread reserves 64 MB that it never uses
             'has = int(open("/proc/self/statm").read().split()[0])*resource.getpagesize()\n'
             'resource.setrlimit(resource.RLIMIT_AS, (has + 400_000_000,)*2)')
    done = warm('run', pipeline('ltx'), '--suite', suite, '--frames', 33, '--height', 1024, '--width', 1024, '--steps', 1, '--out', out, *common, setup=limit)
    assert done.status == 1 and json.loads(done.out).get('failed') == 2, (done.out, done.err)
    assert opened(out).generations['reason'].str.startswith('out_of_memory').all(), opened(out).generations['reason'].tolist()


@pytest.mark.parametrize('kind, size', [('wan', 32), ('cogvideox', 32)])
def test_other_pipelines(warm, pipeline, tmp_path, kind, size):
    suite, out = tmp_path/'s.txt', tmp_path/'run'
    suite.write_text('a red circle\na blue square')
    done = warm('run', pipeline(kind), '--suite', suite, '--frames', 9, '--height', size, '--width', size, '--steps', 2, '--out', out, *common)
    assert done.status == 0, done.err
    run = opened(out)
    assert run.counts == dict(ok=4, failed=0, skipped=0, planned=0)
    clip = run.video(run.generations['prompt'][0], 0)
    assert (len(clip), clip.height, clip.width) == (9, size, size)
    assert run.generations['sha256'].is_unique
    assert {'denoiser', 'vae_decode', 'generate', 'encode', 'score'} <= set(run.samples['stage'])


def test_a_model_that_starts_from_an_image(warm, pipeline, tmp_path):
    "With its image it runs; without one, or with one that is not there, the cell is skipped."
    from PIL import Image
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(tmp_path/'start.png')
    rows = [dict(text='with', image=str(tmp_path/'start.png')), dict(text='without'), dict(text='lost', image=str(tmp_path/'lost.png'))]
    suite, out = tmp_path/'s.jsonl', tmp_path/'run'
    suite.write_text('\n'.join(map(json.dumps, rows)))
    done = warm('run', pipeline('svd'), '--suite', suite, '--frames', 2, '--height', 32, '--width', 32, '--steps', 2, '--out', out, *common)
    assert done.status == 0, done.err
    run = opened(out)
    assert run.counts == dict(ok=2, failed=0, skipped=4, planned=0)
    text = {p.id: p.text for p in run.protocol.prompts}
    by = run.generations.assign(text=run.generations['prompt'].map(text)).groupby('text').first()
    assert by.loc['with', 'status'] == 'ok' and 'no image' in by.loc['without', 'reason'] and 'cannot be read' in by.loc['lost', 'reason']
    assert len(run.scores) == 6*len(run.protocol.metrics)
    Image.new('RGB', (48, 48), 'red').save(tmp_path/'start.png')
    again = warm('run', pipeline('svd'), '--suite', suite, '--frames', 2, '--height', 32, '--width', 32, '--steps', 2, '--out', out, *common)
    assert again.status == 1 and 'another protocol (images.' in json.loads(again.out)['message'], 'another picture under the same name'
    left = run.scores[run.scores['prompt'].map(text) != 'with']
    assert (left['status'] == 'skipped').all() and left['value'].isna().all()
