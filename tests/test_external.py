"""Clips that others made: whatever lies in the folder or stands in the manifest, each clip is a row, what is left out is told, and nothing waits."""
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from vdb.core import InputError, RunError, Video
from vdb.external import list_clips, score
from vdb.media.write import write_video


pytestmark = pytest.mark.usefixtures('promptly')


@pytest.fixture(scope='session')
def clip(tmp_path_factory):
    "A small clip that can be read."
    path = tmp_path_factory.mktemp('clip')/'clip.mp4'
    write_video(Video(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), 8.), path)
    return path


@pytest.fixture
def folder(tmp_path):
    there = tmp_path/'clips'
    there.mkdir()
    return there


def scored(source, tmp_path, **how):
    "The run and what was told beside it."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        run = score(source, out=str(tmp_path/'run'), metrics=['sharpness'], progress=False, **how)
    return run, [str(w.message) for w in told if issubclass(w.category, UserWarning)]


def rows(run) -> dict:
    "(prompt text, seed) -> (status, reason)."
    text = {p.id: p.text for p in run.protocol.prompts}
    return {(text[g.prompt], g.seed): (g.status, g.reason) for g in run.generations.itertuples()}


def refused(source, *parts) -> InputError:
    with pytest.raises(InputError) as found: list_clips(source)
    said = str(found.value)
    assert len(said.splitlines()) == 1 and len(said) < 590, said
    for part in parts: assert part in said, (part, said)
    return found.value


def cells(source) -> list:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return [(c.prompt, c.seed) for c in list_clips(source)]


# The plan

def test_numbers_that_differ_plan_no_cell_that_nobody_gave(folder, tmp_path, clip):
    for i in (101, 102, 103): shutil.copy(clip, folder/f'clip{i}-{i}.mp4')
    run, told = scored(folder, tmp_path)
    assert run.counts == dict(ok=3, failed=0, skipped=0, planned=0)
    assert set(rows(run)) == {('clip101', 0), ('clip102', 0), ('clip103', 0)} and len(told) == 1 and 'counted from 0' in told[0]


given = [
    ({'a': [0, 1, 2], 'b': [0, 1, 2]}, {'a': [0, 1, 2], 'b': [0, 1, 2]}), ({'a': [7, 9], 'b': [7, 9]}, {'a': [7, 9], 'b': [7, 9]}),
    ({'a': [0, 1, 2, 3], 'b': [0, 1, 3]}, {'a': [0, 1, 2, 3], 'b': [0, 1, 3]}), ({'a': [5]}, {'a': [5]}),
    ({'a': [0, 1], 'b': [2, 3]}, {'a': [0, 1], 'b': [0, 1]}), ({'a': [4], 'b': [10, 9], 'c': [1]}, {'a': [0], 'b': [1, 0], 'c': [0]}),
]


@pytest.mark.parametrize('numbers, seeds', given)
@pytest.mark.parametrize('kind', ['folder', 'm.csv', 'm.jsonl'])
def test_numbers_are_seeds_where_one_prompt_has_them_all(folder, numbers, seeds, kind):
    all_of = [(p, i) for p, found in numbers.items() for i in found]
    if kind == 'folder':
        for p, i in all_of: (folder/f'{p}-{i}.mp4').touch()
    elif kind == 'm.csv': (folder/kind).write_text('path,prompt,seed\n' + ''.join(f'{p}{i}.mp4,{p},{i}\n' for p, i in all_of))
    else: (folder/kind).write_text('\n'.join(json.dumps(dict(path=f'{p}{i}.mp4', prompt=p, seed=i)) for p, i in all_of))
    found = cells(folder if kind == 'folder' else folder/kind)
    assert sorted(found) == sorted((p, i) for p, of in seeds.items() for i in of)
    prompts, most = {p for p, _ in found}, max(len(x) for x in numbers.values())
    assert len(prompts)*len({i for _, i in found}) == len(prompts)*most, 'the smallest plan that holds them'


def test_folders_with_the_same_names_are_paired(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(50):
        names = {f'p{random.integers(4)}-{random.integers(12)}.mp4' for _ in range(random.integers(1, 9))}
        found = []
        for side in ('a', 'b'):
            shutil.rmtree(tmp_path/side, ignore_errors=True)
            (tmp_path/side).mkdir()
            for name in sorted(names, reverse=side == 'b'): (tmp_path/side/name).touch()
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                found.append([(c.path.name, c.prompt, c.seed) for c in list_clips(tmp_path/side)])
        assert found[0] == found[1] and len(found[0]) == len(names)


# What lies in a folder

def test_what_is_left_out_is_told(folder, tmp_path, clip):
    for name in ('a-0.mp4', 'a-1.m4v', 'a-2.MOV'): shutil.copy(clip, folder/name)
    for name in ('b.webp', 'c.webp', 'notes.txt', '.DS_Store', 'no-ending'): (folder/name).write_bytes(b'x')
    (folder/'more').mkdir()
    shutil.copy(clip, folder/'more'/'d-0.mp4')
    run, told = scored(folder, tmp_path)
    assert {k: v[0] for k, v in rows(run).items()} == {('a', i): 'ok' for i in range(3)}
    assert len(told) == 1 and told[0].startswith('5 ') and '2 .webp' in told[0] and '1 .txt' in told[0] and 'folder' in told[0], told


def test_left_out_is_one_line_of_the_command(warm, folder, clip):
    shutil.copy(clip, folder/'a-0.mp4')
    (folder/'b.webp').touch()
    done = warm('score', folder, '--out', folder.parent/'run', '--no-report', '--quiet', '--metric', 'sharpness')
    assert done.status == 0 and len(done.err.splitlines()) == 1 and '1 .webp' in done.err, done.err


def test_a_folder_of_frames_is_a_clip(folder, tmp_path):
    write_video(Video(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), 8.), f'{folder}/v1.5 frames-3/')
    run, told = scored(folder, tmp_path)
    assert rows(run) == {('v1.5 frames', 3): ('ok', '')} and not told
    assert len(run.video(run.protocol.prompts[0].id, 3)) == 4
    frame = next((folder/'v1.5 frames-3').glob('*.png'))
    frame.write_bytes(frame.read_bytes() + b'x')
    with pytest.raises(RunError): scored(folder, tmp_path)  # other frames: another protocol


def test_only_files_are_opened(folder, tmp_path, clip):
    shutil.copy(clip, folder/'good-0.mp4')
    os.mkfifo(folder/'pipe-0.mp4')
    (folder/'zero-0.mp4').symlink_to('/dev/zero')
    (folder/'lost-0.mp4').symlink_to(folder/'nowhere')
    (folder/'round-0.mp4').symlink_to(folder/'round-0.mp4')
    (folder/'folder-0.mp4').mkdir()
    (folder/'linked-0.mp4').symlink_to(clip)
    frames = folder/'frames-0'
    frames.mkdir()
    (frames/'video.json').write_text('{"fps": 8}')
    os.mkfifo(frames/'0.png')
    run, told = scored(folder, tmp_path)
    found = {p: v for (p, _), v in rows(run).items()}
    assert {p: v[0] for p, v in found.items()} == dict(good='ok', linked='ok', pipe='failed', zero='failed', lost='failed', round='failed', frames='failed')
    assert 'a pipe' in found['pipe'][1] and 'a device' in found['zero'][1] and '0.png' in found['frames'][1]
    assert len(told) == 1 and '1 folder' in told[0]


def test_a_manifest_does_not_wait(folder, tmp_path, clip):
    os.mkfifo(folder/'pipe.mp4')
    os.mkfifo(folder/'m.csv')
    refused(folder/'m.csv', 'm.csv is a pipe')
    (folder/'m.jsonl').write_text('\n'.join(json.dumps(dict(path=p, prompt=p)) for p in ('pipe.mp4', '/dev/zero', str(clip))))
    run, _ = scored(folder/'m.jsonl', tmp_path)
    assert sorted(v[0] for v in rows(run).values()) == ['failed', 'failed', 'ok']


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such names')
def test_a_name_that_is_not_utf8(tmp_path, clip):
    folder = os.fsencode(tmp_path/'clips') + b'\xff'
    os.mkdir(folder)
    for name in (b'caf\xe9-0.mp4', b'plain-0.mp4'): shutil.copy(clip, os.path.join(folder, name))
    frames = os.path.join(folder, b'fr\xe9-0')
    os.mkdir(frames)
    write_video(Video(np.zeros((2, 32, 32, 3), np.uint8), 8.), tmp_path/'plain')
    for f in (tmp_path/'plain').iterdir(): shutil.copy(f, os.fsdecode(frames))
    run, _ = scored(os.fsdecode(folder), tmp_path)
    assert {k: v[0] for k, v in rows(run).items()} == {('caf\\xe9', 0): 'ok', ('plain', 0): 'ok', ('fr\\xe9', 0): 'ok'}
    for p in run.protocol.prompts: assert len(run.video(p.id, 0))
    assert Path(run.report()).is_file()


@pytest.mark.parametrize('name', [' -0.mp4', ' .mp4', '\t-1.mp4', '-0.mp4', '\n.mp4', '🎈'*60 + '-0.mp4'])
def test_any_name_is_a_prompt(folder, tmp_path, clip, name):
    shutil.copy(clip, folder/name)
    run, _ = scored(folder, tmp_path)
    assert run.counts == dict(ok=1, failed=0, skipped=0, planned=0) and run.protocol.prompts[0].text.strip()


# Manifests

@pytest.mark.parametrize('row, part', [
    (dict(prompt='  '), 'the prompt is blank'), (dict(prompt={'text': 'x'}), 'dict'), (dict(prompt=5), 'int'), (dict(prompt='\ud800'), 'half a character'),
    (dict(prompt=['x']), 'list'), (dict(seed=1.7), '1.7'), (dict(seed=1.0), '1.0'), (dict(seed=True), 'True'), (dict(seed=False), 'False'), (dict(seed=-1), '-1'),
    (dict(seed='-1'), "'-1'"), (dict(seed='1_0'), "'1_0'"), (dict(seed=2**63), str(2**63)), (dict(seed=[1]), '[1]'), (dict(seed='x'*3000), 'x'), (dict(path=5), 'path'), (dict(path=''), 'no path'),
    (dict(path='a\0b'), 'path'), (dict(path='\ud800'), 'path'), (dict(path=['a']), 'path'), (dict(path=' ', prompt=''), 'path'), (dict(seed=float('inf')), 'Infinity'),
])
def test_a_bad_line_of_a_manifest_is_refused_with_its_number(folder, row, part):
    (folder/'m.jsonl').write_text('\n'.join(json.dumps(dict(dict(path=f'{i}.mp4', prompt='x', seed=i), **(row if i == 1 else {}))) for i in range(3)))
    refused(folder/'m.jsonl', 'm.jsonl:2', part)


def test_every_mistake_of_a_manifest_is_told_at_once(folder):
    (folder/'m.csv').write_text('path,prompt,seed\n,x,0\na.mp4,x,1.5\nb.mp4,"  ",0\nc.mp4,x,7\nd.mp4,x,7\ne.mp4,x, y,0\n')
    told = refused(folder/'m.csv', '5 mistakes', 'm.csv:2', 'm.csv:3', 'm.csv:4', '… and 2 more').as_dict()['fields']['mistakes'].split('\n')
    assert [x.partition(' ')[0].strip(':') for x in told] == [f'm.csv:{n}' for n in (2, 3, 4, 6, 7)]


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('prompt', ['two\nlines', 'a "quoted" one', 'with, commas', 'one\u2028line', 'one\x0bline', ' kept '])
def test_a_prompt_survives_a_csv(folder, end, prompt):
    import csv
    with open(folder/'m.csv', 'w', newline='', encoding='utf-8-sig') as file:
        csv.writer(file, lineterminator=end).writerows([['path', 'prompt'], ['a.mp4', prompt], [], ['', 'x']])
    n = 4 + prompt.count('\n')
    refused(folder/'m.csv', f'm.csv:{n} has no path')
    with open(folder/'m.csv', 'w', newline='', encoding='utf-8-sig') as file:
        csv.writer(file, lineterminator=end).writerows([['path', 'prompt'], ['a.mp4', prompt]])
    assert cells(folder/'m.csv') == [(prompt, 0)]


def test_a_huge_field_and_a_huge_manifest(folder):
    (folder/'m.csv').write_text('path,prompt\na.mp4,' + 'x'*200_000 + '\n')
    refused(folder/'m.csv', 'm.csv:2')
    with open(folder/'m.csv', 'wb') as file: file.truncate(20_000_000_000)
    refused(folder/'m.csv', '20.0 GB', '100 MB')


def test_seeds_that_are_whole(folder):
    (folder/'m.jsonl').write_text('\n'.join(json.dumps(dict(path='a.mp4', prompt='x', seed=s)) for s in (3, '4', None, 2**63 - 1)))
    assert cells(folder/'m.jsonl') == [('x', 3), ('x', 4), ('x', 0), ('x', 2**63 - 1)]


def test_a_link_out_of_the_folder_tells_nothing_of_what_it_names(folder, tmp_path):
    (tmp_path/'secret').write_text('the password is swordfish\n')
    (folder/'a-0.mp4').symlink_to(tmp_path/'secret')
    run, _ = scored(folder, tmp_path)
    ((status, reason),) = rows(run).values()
    assert status == 'failed' and 'password' not in reason and str(tmp_path/'secret') not in reason
    assert 'password' not in ' '.join(run.scores['reason'])


def test_a_clip_that_was_moved_is_told_without_a_command_that_would_fail(folder, clip, tmp_path):
    for i in range(2): shutil.copy(clip, folder/f'a-{i}.mp4')
    run, _ = scored(folder, tmp_path)
    (folder/'a-0.mp4').rename(tmp_path/'elsewhere.mp4')
    from vdb.runs import open_run
    with pytest.warns(UserWarning, match='1 of 2 stored clips are damaged.*it is missing.*put back a copy'): open_run(run.path)
    (tmp_path/'elsewhere.mp4').rename(folder/'a-0.mp4')
    assert not open_run(run.path).damaged
