"""A suite is read and judged as a whole before any model is loaded: whatever is in the file, the answer is prompts or one clear line."""
import json
import os
import re
import string

import pytest

from vdb.core import InputError, Prompt
from vdb.prompts.suites import load_suite, read_suite
from vdb.text import safe_name


pytestmark = pytest.mark.usefixtures('promptly')


def written(folder, text, name='s.jsonl'):
    (folder/name).write_bytes(text if isinstance(text, bytes) else text.encode('utf-8', 'surrogatepass'))
    return folder/name


def refused(call, *parts) -> InputError:
    "The one line of a refusal, which names what is in `parts`."
    with pytest.raises(InputError) as found: call()
    said = str(found.value)
    assert len(said.splitlines()) == 1 and len(said) < 590, said
    json.dumps(found.value.as_dict(), ensure_ascii=False).encode()
    for part in parts: assert part in said, (part, said)
    return found.value


def line(**fields): return json.dumps(dict(text='a cat', **fields))


# Lines

bad_lines = [
    ('{"text": "a", "tags": {"k": 1e999}}', '1e999'), ('{"text": "a", "tags": {"k": -1e999}}', '-1e999'), ('{"text": "a", "tags": {"k": Infinity}}', 'Infinity'),
    (r'{"text": "a\ud800"}', 'half a character'), (r'{"text": "a", "id": "\ud800"}', 'cannot name a file'), (r'{"text": "a", "tags": {"k": "\udc00"}}', 'half a character'),
    (r'{"text": "a", "tags": {"\udc00": 1}}', 'half a character'), (r'{"text": "a", "image": "\udc00.png"}', 'half a character'),
    (r'{"text": "a", "expect": {"background": "\udc00"}}', 'half a character'),
    ('['*200_000, 'nested'), ('{"text": ' + '['*900 + ']'*900 + '}', 's.jsonl:2'), ('{"a":'*200_000, 'nested'),
    (line(expect=5), 'expect'), (line(expect=[]), 'expect'), (line(expect='x'), 'expect'), (line(expect=dict(objects={})), 'objects'),
    (line(expect=dict(objects=[1])), 'objects'), (line(expect=dict(objects='red')), 'objects'), (line(expect=dict(objects=None)), 'objects'),
    (line(expect=dict(objects=[dict(colour=3)])), 'colour'), (line(expect=dict(objects=[dict(colour=None)])), 'colour'), (line(expect=dict(objects=[dict(color='red')])), 'color'),
    (line(expect=dict(background=1)), 'background'), (line(expect=dict(object=[])), 'object'),
    (line(tags=[1]), 'tags'), (line(tags='x'), 'tags'), (line(tags=None), 'tags'), (line(tags=dict(k=[1])), 'k'), (line(tags=dict(k=dict())), 'k'), (line(tags=dict(k=None)), 'k'),
    (line(image=1), 'image'), (line(image=True), 'image'), (line(image=''), 'image'), (line(image=['x']), 'image'), (line(image='a\0b'), 'image'),
    (line(image='/dev/zero'), '/dev/zero is a device'), (line(image='/'), 'is a folder'),
    (line(id=5), 'id'), (line(id=0), 'id'), (line(id=None), 'id'), (line(id=False), 'id'), (line(id='🎈'*80), 'cannot name a file'), ('{"text": 5}', 'got int'),
    ('{"text": null}', 'NoneType'), ('{"text": ["' + 'x'*5000 + '"]}', 'got list'),
]


@pytest.mark.parametrize('bad, part', bad_lines, ids=[re.sub(r'\W+', ' ', x)[:40] + str(i) for i, (x, _) in enumerate(bad_lines)])
def test_a_bad_line_is_refused_with_its_number(tmp_path, bad, part):
    refused(lambda: read_suite(written(tmp_path, '{"text": "a dog"}\n' + bad)), 's.jsonl:2', part)


def test_every_mistake_is_told_at_once(tmp_path):
    wrong = ['{', '{"text": ""}', '[1]', '{"tags": {}}', '{"text": "a", "colour": "red"}', line(image=1), line(expect=5)]
    lines = ['{"text": "a dog"}', *wrong, '{"text": "a dog"}']
    error = refused(lambda: read_suite(written(tmp_path, '\n'.join(lines))), '8 mistakes', 's.jsonl:2 ', 's.jsonl:3', 's.jsonl:4 ', '… and 5 more')
    told = error.as_dict()['fields']['mistakes'].split('\n')
    assert [int(re.match(r's\.jsonl:(\d+)', x)[1]) for x in told] == [2, 3, 4, 5, 6, 7, 8, 9], told


def test_names_and_lines_of_any_length_make_one_short_line(tmp_path):
    name = 'n'*240 + '.jsonl'
    refused(lambda: read_suite(written(tmp_path, '\n'.join(['{"text": "a", "' + 'k'*3000 + '": 1}']*2000), name)), '2000 mistakes')


def test_duplicates_have_their_line(tmp_path):
    refused(lambda: read_suite(written(tmp_path, 'a cat\na dog\na cat\n', 's.txt')), 's.txt:3', 'line 1')


def test_what_is_refused_is_refused_before_a_model_is_looked_for(warm, tmp_path):
    written(tmp_path, '\n'.join([line(image=1), line(expect=5), line(tags=[1])]))
    done = warm('run', 'no-such-model', '--suite', 's.jsonl', cwd=tmp_path)
    assert done.status == 2 and done.err.count('\n') == 1, done.err
    for n in (1, 2, 3): assert f's.jsonl:{n}: ' in done.err
    as_json = json.loads(warm('run', 'no-such-model', '--suite', 's.jsonl', '--json', cwd=tmp_path).out)
    assert len(as_json['fields']['mistakes'].split('\n')) == 3


@pytest.mark.parametrize('separator', ['\u2028', '\u2029', '\x85', '\x0b', '\x0c', '\x1c'])
def test_only_line_ends_end_a_line(tmp_path, separator):
    text = f'a{separator}cat'
    assert [p.text for p in read_suite(written(tmp_path, f'{text}\na dog\r\n', 's.txt'))] == [text, 'a dog']
    if separator >= ' ':
        read = read_suite(written(tmp_path, json.dumps(dict(text=text), ensure_ascii=False) + '\r\n{"text": "a dog"}'))
        assert [p.text for p in read] == [text, 'a dog']


def test_what_json_can_say_is_kept(tmp_path):
    given = dict(text='a cat', id='cat', tags=dict(a='x', b=1, c=.5, d=True, e=10**400), image='https://example.org/a.png',
                 expect=dict(objects=[dict(shape='circle', colour='red')], background='black'))
    (found,) = read_suite(written(tmp_path, json.dumps(given)))
    assert found == Prompt(**given)


def test_an_image_that_is_missing_is_the_cells_business(tmp_path):
    assert read_suite(written(tmp_path, line(image=str(tmp_path/'lost.png'))))[0].image
    os.mkfifo(tmp_path/'pipe.png')
    refused(lambda: read_suite(written(tmp_path, line(image=str(tmp_path/'pipe.png')))), 's.jsonl:1', 'pipe')
    refused(lambda: load_suite([Prompt('a', image=str(tmp_path/'pipe.png'))]), 'pipe')


# Names

@pytest.mark.parametrize('letter', ['a', 'é', '道', '🎈'])
def test_every_id_that_is_accepted_names_a_file(tmp_path, letter):
    "With the longest seed and the ending of a file that is being written."
    accepted = 0
    for n in range(1, 90):
        try: name = Prompt('x', id=letter*n).id
        except InputError: continue
        (tmp_path/f'{name}-{2**63 - 1}.mp4.01234567.part').write_bytes(b'')
        accepted += 1
    assert accepted >= 40
    assert len(safe_name(letter*5000).encode()) < 60


# Text files

def test_a_number_sign_begins_a_comment(tmp_path):
    text = '\ufeff# my prompts\na cat\n  # indented\n#\nthe #1 mug\n'
    assert [p.text for p in read_suite(written(tmp_path, text, 's.txt'))] == ['a cat', 'the #1 mug']
    refused(lambda: read_suite(written(tmp_path, '# nothing else\n', 's.txt')), 'has no prompts')


@pytest.mark.parametrize('name', ['s.json', 's.csv', 's', 's.txt.bak', 's.yaml'])
def test_an_unknown_ending_is_refused(tmp_path, name):
    refused(lambda: load_suite(written(tmp_path, '[{"text": "a"}]', name)), name, '.jsonl', '.txt')


def test_endings_may_be_in_capitals(tmp_path):
    assert read_suite(written(tmp_path, '{"text": "a"}', 'S.JSONL'))[0].text == read_suite(written(tmp_path, 'a', 'S.TXT'))[0].text == 'a'


# What is no file

@pytest.mark.parametrize('read', [read_suite, load_suite])
def test_only_a_file_is_a_suite(tmp_path, read):
    (tmp_path/'folder.jsonl').mkdir()
    os.mkfifo(tmp_path/'pipe.jsonl')
    (tmp_path/'link.jsonl').symlink_to('/dev/zero')
    for name, kind in (('folder.jsonl', 'a folder'), ('pipe.jsonl', 'a pipe'), ('link.jsonl', 'a device')): refused(lambda: read(tmp_path/name), name, kind)


def test_a_huge_file_is_refused_unread(tmp_path):
    with open(tmp_path/'s.jsonl', 'wb') as file: file.truncate(20_000_000_000)
    refused(lambda: load_suite(tmp_path/'s.jsonl'), '20.0 GB', '100 MB')


# Any text at all

def test_any_bytes_are_prompts_or_one_line(tmp_path):
    import random
    chance = random.Random(0)
    seeds = [b'{"text": "a cat", "tags": {"k": 1}, "expect": {"objects": [{"colour": "red"}]}, "id": "x", "image": "y.png"}', 'café 道🎈'.encode(), string.printable.encode()]
    for _ in range(600):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(6)): data[chance.randrange(len(data))] = chance.randrange(256)
        for name in ('s.jsonl', 's.txt'):
            try: read = read_suite(written(tmp_path, bytes(data), name))
            except InputError as error: assert len(str(error).splitlines()) == 1 and len(str(error)) < 590
            else:
                for p in read: json.dumps([p.text, p.tags, p.expect], allow_nan=False, ensure_ascii=False).encode()
