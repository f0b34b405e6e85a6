"A private JupyterLab on loopback and a headless Chromium to look at it with."
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()


def chromium() -> str:
    "The browser's path; a test that needs it is skipped, with what to install, where there is none."
    pytest.importorskip('playwright.sync_api', reason='needs playwright: pip install "vdb[browser]"')
    found = os.environ.get('VDB_CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    if not found: pytest.skip('needs Chromium: on Debian or Ubuntu "apt-get install chromium", elsewhere put its path into VDB_CHROMIUM')
    return found


@contextlib.contextmanager
def lab(folder: Path):
    "A JupyterLab whose files are those of `folder`; yields its address."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    private = Path(tempfile.mkdtemp())
    news = private/'s'/'@jupyterlab'/'apputils-extension'/'notification.jupyterlab-settings'  # its popup lies over the page
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = dict(os.environ, JUPYTER_CONFIG_DIR=f'{private}/c', JUPYTER_DATA_DIR=f'{private}/d', JUPYTERLAB_SETTINGS_DIR=f'{private}/s',
               JUPYTERLAB_WORKSPACES_DIR=f'{private}/w', JUPYTER_RUNTIME_DIR=f'{private}/r', JUPYTER_PREFER_ENV_PATH='1')
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', f'--port={port}', '--IdentityProvider.token=t0ken',
               f'--ServerApp.root_dir={folder}', '--allow-root', '--expose-app-in-browser']
    with open(private/'log', 'w') as log: server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    address = f'http://127.0.0.1:{port}'
    try:
        for _ in range(480):
            assert server.poll() is None, (private/'log').read_text()[-2000:]
            try: urllib.request.urlopen(f'{address}/api?token=t0ken', timeout=2); break
            except OSError: time.sleep(.25)
        yield address
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill(); server.wait()
        shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def page(width: int = 1280, height: int = 900):
    "A page of a fresh browser. Nothing outside of this machine is asked for."
    from playwright.sync_api import sync_playwright
    path = chromium()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, headless=True, args=flags, timeout=180_000)
        try:
            made = browser.new_page(viewport=dict(width=width, height=height))
            made.set_default_timeout(180_000)
            yield made
        finally: browser.close()


def write_notebook(path: Path, *sources: str) -> None:
    cells = [dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=None, outputs=[], source=s) for i, s in enumerate(sources)]
    kernel = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    path.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))


def run_all(pg, address: str, notebook: str) -> None:
    "Open a notebook and run its cells."
    pg.goto(f'{address}/lab/tree/{notebook}?token=t0ken&reset', wait_until='domcontentloaded')
    pg.wait_for_selector('.jp-Notebook')
    pg.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status=idle]')
    pg.evaluate('''async () => { const app = window.jupyterapp;
        await app.shell.currentWidget.context.sessionContext.ready;
        app.commands.execute('notebook:run-all-cells') }''')  # without the wait a dialog asks for a kernel; evaluate itself has no time limit


def run_code(pg, code: str) -> None:
    "Run code in the kernel of the notebook that is open, beside its cells."
    pg.evaluate('(code) => { window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.requestExecute({code}) }', code)


def asked(pg, expression: str, folder: Path, seconds: float = 60.) -> object:
    "What an expression is worth in the kernel of the notebook that is open, if JSON can say it."
    file = folder/f'{time.monotonic_ns()}.json'
    run_code(pg, f'import json, os; open({str(file) + ".part"!r}, "w").write(json.dumps({expression})); os.replace({str(file) + ".part"!r}, {str(file)!r})')
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f'the kernel did not say what {expression} is'
        time.sleep(.05)
    return json.loads(file.read_text())


class Watched:
    "A page with a notebook in it, and what it asked for and complained of."
    def __init__(self, pg, address: str, folder: Path, widget: str, *cells: str) -> None:
        self.pg, self.folder, self.complaints, self.hosts, self.expected = pg, folder, [], set(), {address.removeprefix('http://')}
        pg.on('console', lambda m: self.complaints.append(m.text) if m.type == 'error' else None)
        pg.on('pageerror', lambda e: self.complaints.append(str(e)))
        pg.on('request', lambda r: self.hosts.add(r.url.split('/')[2]) if r.url.startswith(('http', 'ws')) else None)
        name = f'watched{len(list(folder.glob("*.ipynb")))}.ipynb'
        write_notebook(folder/name, *cells)
        run_all(pg, address, name)
        pg.wait_for_selector(widget)

    def ends_well(self) -> None:
        assert self.hosts <= self.expected, f'asked for {self.hosts - self.expected}'
        assert not self.complaints, self.complaints
