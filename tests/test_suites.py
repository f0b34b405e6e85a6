"""A suite is read and judged as a whole before any model is loaded: whatever is in the file, the answer is prompts or one clear line."""
import json
import os
import re
import string

import pytest

from vdb.core import InputError, Prompt
from vdb.prompts.suites import Suite, all_suites, load_suite, read_suite
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


def line(**fields): return json.dumps(dict(dict(text='a cat'), **fields))


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
    assert [p.text for p in read_suite(written(tmp_path, f'{text}\na dog\r\n', 's.txt')).prompts] == [text, 'a dog']
    if separator >= ' ':
        read = read_suite(written(tmp_path, json.dumps(dict(text=text), ensure_ascii=False) + '\r\n{"text": "a dog"}'))
        assert [p.text for p in read.prompts] == [text, 'a dog']


def test_what_json_can_say_is_kept(tmp_path):
    given = dict(text='a cat', id='cat', tags=dict(a='x', b=1, c=.5, d=True, e=10**400), image='https://example.org/a.png',
                 expect=dict(objects=[dict(shape='circle', colour='red')], background='black'))
    (found,) = read_suite(written(tmp_path, json.dumps(given))).prompts
    assert found == Prompt(**given)


def test_an_image_that_is_missing_is_the_cells_business(tmp_path):
    assert read_suite(written(tmp_path, line(image=str(tmp_path/'lost.png')))).prompts[0].image
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
    assert [p.text for p in read_suite(written(tmp_path, text, 's.txt')).prompts] == ['a cat', 'the #1 mug']
    refused(lambda: read_suite(written(tmp_path, '# nothing else\n', 's.txt')), 'has no prompts')


@pytest.mark.parametrize('name', ['s.json', 's.csv', 's', 's.txt.bak', 's.yaml'])
def test_an_unknown_ending_and_any_other_json_are_refused(tmp_path, name):
    refused(lambda: load_suite(written(tmp_path, '[{"text": "a"}]', name)), name, '.jsonl', '.txt')


def test_endings_may_be_in_capitals(tmp_path):
    for name, text in (('S.JSONL', '{"text": "a"}'), ('S.TXT', 'a'), ('S.JSON', '[{"prompt_en": "a"}]')): assert read_suite(written(tmp_path, text, name)).prompts[0].text == 'a'


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


# What a suite says about itself

def headed(folder, header, *lines): return read_suite(written(folder, '\n'.join([header if isinstance(header, str) else json.dumps(header), *lines])))


def test_a_header_says_what_the_verdict_is_about(tmp_path):
    found = headed(tmp_path, dict(about=' Pets,  one a line', primary=['adherence', 'sharpness']), line())
    assert found == Suite('s', (Prompt('a cat'),), 'Pets, one a line', ('adherence', 'sharpness'))
    assert headed(tmp_path, '\n' + json.dumps(dict(primary=['adherence'])), line()) == Suite('s', (Prompt('a cat'),), '', ('adherence',))
    assert headed(tmp_path, dict(about='Pets'), line()) == Suite('s', (Prompt('a cat'),), 'Pets')
    assert read_suite(written(tmp_path, line())) == Suite('s', (Prompt('a cat'),))


bad_headers = [
    (dict(about=5), 'about'), (dict(about=None), 'about'), (dict(about=['x']), 'about'), (dict(about='x'*201), '200'), ('{"about": "half \\ud800"}', 'about'),
    (dict(primary='adherence'), 'primary'), (dict(primary=[]), 'one to three'), (dict(primary=list('abcd')), 'one to three'), (dict(primary=[1]), 'primary'),
    (dict(primary=['']), 'primary'), (dict(primary=['a', 'a']), 'primary'), (dict(primary=None), 'primary'), ('{"primary": ["\\ud800"]}', 'primary'), (dict(primary=[['a']]), 'primary'),
    (dict(about='x', title='y'), 'title'), (dict(primary=['a'], tags={}), 'tags'), (dict(about='x', text='a cat'), 'about'), (dict(title='x'), 'title'),
]


@pytest.mark.parametrize('header, part', bad_headers, ids=[str(i) for i in range(len(bad_headers))])
def test_a_bad_header_is_told_with_its_line_and_with_the_others(tmp_path, header, part):
    refused(lambda: headed(tmp_path, header, line()), 's.jsonl:1', part)
    refused(lambda: headed(tmp_path, header, line(), line(image=1)), '2 mistakes', 's.jsonl:1', part, 's.jsonl:3')


def test_only_the_first_object_is_a_header(tmp_path):
    refused(lambda: headed(tmp_path, line(), json.dumps(dict(about='x'))), 's.jsonl:2', 'about')
    refused(lambda: headed(tmp_path, dict(about='x'), json.dumps(dict(about='x')), line()), 's.jsonl:2', 'about')
    refused(lambda: headed(tmp_path, dict(about='x')), 'has no prompts')


def test_a_suite_that_cannot_be_read_costs_only_itself(tmp_path, monkeypatch):
    import vdb.prompts.suites as suites
    good, bad = written(tmp_path, line(), 'good.jsonl'), written(tmp_path, '{oops', 'bad.jsonl')
    monkeypatch.setattr(suites, 'registered_files', lambda kind, ending: dict(bad=bad, good=good))
    with pytest.warns(UserWarning, match='bad.jsonl is left out: bad.jsonl:1 is not JSON'): assert all_suites() == dict(good=read_suite(good))


# VBench's list

def vbench(folder, *entries, name='full_info.json'): return written(folder, json.dumps(entries), name)


def test_vbenchs_list_is_a_suite(tmp_path):
    found = read_suite(vbench(tmp_path, dict(prompt_en='a bird', dimension=['color', 'scene'], auxiliary_info=dict(color=dict(color='red'))), dict(prompt_en='a cat', dimension='scene'),
                              dict(prompt_en='a bird', dimension=['scene', 'overall_consistency']), dict(prompt_en='a dog')))
    assert found.name == 'full_info' and [(p.text, p.tags, p.expect) for p in found.prompts] == [
        ('a bird', dict(dimension='color, scene, overall_consistency', language='en'), None), ('a cat', dict(dimension='scene', language='en'), None), ('a dog', dict(language='en'), None)]
    assert [p.id for p in found.prompts] == [Prompt(x).id for x in ('a bird', 'a cat', 'a dog')]


def test_mistakes_in_vbenchs_list_have_their_entry(tmp_path):
    good = dict(prompt_en='a bird', dimension=['color'])
    bad = [({}, 'prompt_en'), (5, 'int'), (dict(prompt_en=5), 'int'), (dict(prompt_en=' '), 'empty'), (dict(prompt_en='a', dimension=dict(a=1)), 'dimension'), (dict(prompt_en='a', dimension=[1]), 'dimension'),
           (dict(prompt_en='a', dimension=None), 'dimension'), (dict(prompt_en='a', image_name='a.jpg'), 'image'), (dict(prompt_en='\ud800'), 'half a character'),
           (dict(prompt_en='a', dimension=['\ud800']), 'half a character')]
    for entry, part in bad: refused(lambda: read_suite(vbench(tmp_path, good, good, entry)), 'full_info.json:entry 3', part)
    error = refused(lambda: read_suite(vbench(tmp_path, good, *(entry for entry, _ in bad))), '10 mistakes', 'entry 2', '… and 7 more')
    assert error.as_dict()['fields']['mistakes'].count('entry') == 10


@pytest.mark.parametrize('text', ['', '{', '{}', '[]', 'null', '5', '"prompt_en"', '[1]', '["prompt_en"]', '{"prompt_en": "a"}', '[{"text": "a"}]', '['*100_000, '{"a":'*100_000, '[' + '9'*5000 + ']'])
def test_any_other_json_is_refused_in_one_line(tmp_path, text):
    refused(lambda: read_suite(written(tmp_path, text, 'x.json')), 'x.json', 'prompt_en', '.jsonl', '.txt')


# Captions of the world

def test_captions_expect_the_same_in_every_suite(tmp_path):
    shipped = load_suite('shapes').prompts
    texts = [p.text for p in shipped]
    given = [texts, [Prompt(x, tags=dict(k=1)) for x in texts], written(tmp_path, '\n'.join(f' {x.upper()}. ' for x in texts), 's.txt'),
             written(tmp_path, '\n'.join(json.dumps(dict(text=x)) for x in texts)), vbench(tmp_path, *(dict(prompt_en=x) for x in texts))]
    for suite in given: assert [p.expect for p in load_suite(suite).prompts] == [p.expect for p in shipped]
    assert load_suite(given[1]).prompts[0].tags == dict(k=1)


def test_what_a_prompt_brings_stands(tmp_path):
    own = dict(objects=[dict(colour='blue')])
    for expect in (own, {}): assert load_suite([Prompt('a red circle', expect=expect)]).prompts[0].expect == expect
    assert read_suite(written(tmp_path, line(text='a red circle', expect=own))).prompts[0].expect == own
    assert [p.expect for p in load_suite(['a cat', 'a red circle and a cat']).prompts] == [None, None]


# Several as one

def test_a_union_asks_nothing_twice(tmp_path):
    pets, more = written(tmp_path, 'a cat\na dog\n', 'pets.txt'), written(tmp_path, '{"primary": ["sharpness"]}\n{"text": "a bird"}\n{"text": "a cat", "tags": {"k": 1}}', 'more.jsonl')
    both = load_suite(f'{pets}+{more}+tiny')
    assert both.name == 'pets+more+tiny' and both.primary == ('sharpness',)
    assert [p.text for p in both.prompts[:3]] == ['a cat', 'a dog', 'a bird'] and both.prompts[3:] == load_suite('tiny').prompts and both.prompts[0].tags == {}
    assert load_suite('tiny+tiny').prompts == load_suite('tiny').prompts
    assert load_suite(f'{written(tmp_path, load_suite("tiny").prompts[0].text, "own.txt")}+tiny').prompts[1:] == load_suite('tiny').prompts[1:]  # The same under another id


def test_a_union_of_two_prompts_with_one_id_is_refused(tmp_path):
    for other in (dict(text='a dog'), dict(image='https://example.org/a.png'), dict(expect=dict(background='black'))):
        one, two = written(tmp_path, line(id='pet'), 'one.jsonl'), written(tmp_path, line(id='pet', **other), 'two.jsonl')
        refused(lambda: load_suite(f'{one}+{two}'), 'one and two', 'the prompt id pet')


def test_a_file_with_a_plus_in_its_name_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, 'a cat', 'tiny+shapes')
    refused(lambda: load_suite('tiny+shapes'), "ends in ''")
    assert load_suite(written(tmp_path, 'a cat', 'tiny+shapes.txt').name) == Suite('tiny+shapes', (Prompt('a cat'),))


def test_the_unknown_part_of_a_union_is_named():
    refused(lambda: load_suite('tiny+shapez'), 'no suite is called shapez,', 'shapes')
    refused(lambda: load_suite('tinny+shapes'), 'no suite is called tinny,', 'tiny')
    for name in ('tiny+', '+tiny', 'tiny++shapes', '+'): refused(lambda: load_suite(name), f'no suite is called {name},')


# Any text at all

def test_any_bytes_are_prompts_or_one_line(tmp_path):
    import random
    chance = random.Random(0)
    seeds = [b'{"text": "a cat", "tags": {"k": 1}, "expect": {"objects": [{"colour": "red"}]}, "id": "x", "image": "y.png"}',
             b'{"about": "two pets", "primary": ["adherence"]}', b'{"prompt_en": "a cat", "dimension": ["color"], "auxiliary_info": {}}', 'café 道🎈'.encode(), string.printable.encode()]
    for _ in range(600):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(6)): data[chance.randrange(len(data))] = chance.randrange(256)
        for name, content in (('s.jsonl', bytes(data)), ('s.txt', bytes(data)), ('s.json', b'[{"prompt_en": "a"}, ' + bytes(data) + b']')):
            try: read = read_suite(written(tmp_path, content, name)).prompts
            except InputError as error: assert len(str(error).splitlines()) == 1 and len(str(error)) < 590
            else:
                for p in read: json.dumps([p.text, p.tags, p.expect], allow_nan=False, ensure_ascii=False).encode()
