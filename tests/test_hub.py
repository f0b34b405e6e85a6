"A model by its hub id, from a server on this machine that speaks the hub's protocol: no network leaves this machine."
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse

import pytest

import pipelines

COMMIT = 'a1'*20


class Hub(http.server.BaseHTTPRequestHandler):
    "Repository `org/tiny` at one commit: what `snapshot_download` asks for."
    root, asked = None, []

    def do_HEAD(self): self.answer(body=False)
    def do_GET(self): self.answer()
    def log_message(self, *args): pass

    def answer(self, body=True):
        path = urllib.parse.unquote(self.path.split('?')[0])
        self.asked.append(path)
        if path.startswith('/api/models/org/tiny'):
            if path.rstrip('/').rsplit('/', 1)[-1] not in ('tiny', 'main', 'v1', COMMIT): return self.send('{"error": "Revision Not Found"}', 404, {'X-Error-Code': 'RevisionNotFound'})
            files = [dict(rfilename=f.relative_to(self.root).as_posix(), size=f.stat().st_size) for f in self.root.rglob('*') if f.is_file()]
            if '/tree/' in path: return self.send(json.dumps([dict(type='file', path=f['rfilename'], size=f['size'], oid=COMMIT) for f in files]))
            return self.send(json.dumps(dict(id='org/tiny', modelId='org/tiny', sha=COMMIT, siblings=files, private=False, gated=False, tags=[], downloads=0, likes=0)))
        parts = path.split('/', 5)
        file = self.root/parts[5] if path.startswith('/org/tiny/resolve/') and len(parts) == 6 else None
        if file is None or not file.is_file(): return self.send('{"error": "Repository not found"}', 404, {'X-Error-Code': 'RepoNotFound'})
        content = file.read_bytes()
        self.send(content, 200, {'ETag': f'"{hashlib.sha256(content).hexdigest()}"', 'X-Repo-Commit': COMMIT}, body)

    def send(self, content, status=200, headers={}, body=True):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for k, v in {'Content-Length': str(len(content)), 'Content-Type': 'application/json', **headers}.items(): self.send_header(k, v)
        self.end_headers()
        if body and self.command == 'GET': self.wfile.write(content)


CHILD = """
import json, sys
import vdb
from vdb.core import Prompt, Settings, VdbError
name, revision, settings = json.loads(sys.argv[1])
try:
    model = vdb.load(name, revision=revision)
    print(json.dumps(dict(name=model.name, revision=model.fingerprint()['revision'], frames=len(model.generate(Prompt('a red circle'), 0, Settings(**settings))))))
except VdbError as error: print(json.dumps(error.as_dict()))
"""


def package_of_cards(site):
    "A package whose only content is the card of a model on the hub."
    info, cards = site/'other_models-1.dist-info', site/'other_models'
    for folder in (info, cards): folder.mkdir(parents=True)
    (info/'METADATA').write_text('Metadata-Version: 2.1\nName: other-models\nVersion: 1\n')
    (info/'entry_points.txt').write_text('[vdb.models]\nother = other_models\n')
    (cards/'__init__.py').write_text('raise SystemExit("a stranger\'s code ran")')
    (cards/'theirs.json').write_text(json.dumps(dict(hub='org/tiny', revision='v1', settings=dict(frames=9, steps=1))))
    return site


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    "A served repository that also holds code and a pickle; `hub(name, revision)` loads from it in a process of its own."
    home = tmp_path_factory.mktemp('hub')
    Hub.root = home/'repository'
    settings = pipelines.save('ltx', Hub.root)
    (Hub.root/'danger.py').write_text('raise SystemExit("a stranger\'s code ran")')
    (Hub.root/'vae'/'weights.bin').write_bytes(b'a pickle')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = dict(os.environ, HF_ENDPOINT=f'http://127.0.0.1:{server.server_port}', HF_HOME=str(home/'home'),
               HF_HUB_OFFLINE='0', HF_HUB_DISABLE_TELEMETRY='1', OMP_NUM_THREADS='1')
    env['PYTHONPATH'] = os.pathsep.join([str(package_of_cards(home/'site')), *filter(None, [env.get('PYTHONPATH')])])
    def load(name, revision=None):
        done = subprocess.run([sys.executable, '-c', CHILD, json.dumps([name, revision, settings])], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    yield load
    server.shutdown()


def test_a_hub_model_is_fetched_at_its_commit_without_code_or_pickles(hub):
    assert hub('org/tiny', 'v1') == dict(name='org/tiny', revision=COMMIT, frames=9)
    fetched = [p for p in Hub.asked if '/resolve/' in p]
    assert any(p.endswith('.safetensors') for p in fetched) and not any(p.endswith(('.py', '.bin')) for p in fetched)


def test_an_unknown_repository_is_one_line(hub):
    assert hub('org/none')['message'].startswith('org/none could not be fetched from the hub')


def test_a_card_of_another_package_names_a_model_of_the_hub(hub):
    Hub.asked.clear()
    assert hub('theirs') == dict(name='theirs', revision=COMMIT, frames=9)
    assert any('/v1' in path for path in Hub.asked)  # the revision of the card, not the newest


def test_an_asked_revision_goes_before_that_of_the_card(hub):
    assert hub('theirs', 'none')['message'].startswith('org/tiny could not be fetched from the hub')
