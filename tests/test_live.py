"The live widget, in a real JupyterLab and a real browser."
import os
import time
from pathlib import Path

import pytest

import browser

# Blocks of eight frames, each of one brightness, that a glance at the canvas tells apart; a prompt with "red" makes red ones
model = '''import threading, time, numpy as np
from vdb.core import Settings
from vdb.widgets.live import LiveStream

class Counting:
    name, context, defaults, device = 'counting', 1, Settings(frames=8, height=32, width=48, fps=16., steps=1), 'cpu'
    def __init__(self): self.n = 0
    def fingerprint(self): return dict(name=self.name)
    def first(self, prompt, seed, settings, on_step=None):
        block = np.zeros((8, 32, 48, 3), np.uint8)
        block[..., 0 if 'red' in prompt.text else 2] = (20*(self.n + np.arange(8))[:, None, None]) % 250
        self.n += 8
        time.sleep(.05)
        return block
    def extend(self, frames, prompt, seed, settings, on_step=None): return self.first(prompt, seed, settings)

live = LiveStream(Counting(), 'something blue')'''
first, second = '.vdb-live >> nth=0', '.vdb-live >> nth=1'
outcome = '''dict(status=live.status, most=live.window.most, pages=len(live.window.pages),
    threads=[x.name for x in threading.enumerate() if x.name.startswith('vdb-')])'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "One JupyterLab for these tests: its address, and its folder."
    browser.chromium()
    from playwright.sync_api import expect
    expect.set_options(timeout=60_000)
    folder = tmp_path_factory.mktemp('live')
    with browser.lab(folder) as address: yield address, folder


class Watched(browser.Watched):
    "A page with the widget in it."
    def __init__(self, pg, address: str, folder: Path, *cells: str) -> None: super().__init__(pg, address, folder, first + ' >> .vdb-live-play', *cells)

    def status(self, wanted: str) -> None: self.pg.wait_for_selector(f'{first} >> xpath=self::*[@data-status="{wanted}"]')

    def record(self) -> None:
        "Note the number of each frame when it is drawn."
        self.pg.evaluate('''() => { window.drawn = [...document.querySelectorAll('.vdb-live canvas')].map(canvas => { const seen = [];
            new MutationObserver(() => seen.push(+canvas.dataset.seq)).observe(canvas, {attributes: true, attributeFilter: ['data-seq']}); return seen }) }''')

    def drawn(self) -> list[int]: return self.pg.evaluate('window.drawn[0]')
    def wait_drawn(self, more: int = 10) -> None: self.pg.wait_for_function(f'window.drawn.every(seen => seen.length >= {more})')

    def colour(self, view: str = first) -> list[int]:
        "The middle of the canvas."
        return self.pg.locator(view + ' >> canvas').evaluate("c => [...c.getContext('2d').getImageData(c.width/2, c.height/2, 1, 1).data].slice(0, 3)")

    def wait_colour(self, name: str) -> None:
        end = time.monotonic() + 60
        while (lambda c: c[0] > c[2] if name == 'red' else c[2] > c[0])(self.colour()) is False:
            assert time.monotonic() < end, f'it did not become {name}'
            time.sleep(.1)

    def kernel(self) -> dict:
        "What the kernel says of the widget."
        return browser.asked(self.pg, outcome.replace('\n', ' '), self.folder)

    def kernel_when(self, status: str) -> dict:
        "The same, once it says so and nothing of it runs any more."
        end = time.monotonic() + 60
        while (told := self.kernel())['status'] != status or told['threads']:
            assert time.monotonic() < end, told
            time.sleep(.5)
        return told


@pytest.mark.timeout(600)
def test_play_switch_pause_save_and_stop(lab):
    from playwright.sync_api import expect
    with browser.page() as pg:
        shown = Watched(pg, *lab, model, 'live')
        play, stop = pg.get_by_role('button', name='Play'), pg.get_by_role('button', name='Stop')
        for label in ('Prompt', 'Controller', 'Frames/s'): expect(pg.get_by_label(label)).to_be_visible()
        expect(pg.get_by_role('group', name='Live stream of counting')).to_be_visible()
        expect(stop).to_be_disabled()
        shown.record()
        play.focus()
        pg.keyboard.press('Space')
        shown.wait_drawn(20)
        assert len({tuple(shown.colour()) for _ in range(20) if not time.sleep(.05)}) > 3, 'the picture changes'
        shown.wait_colour('blue')
        expect(pg.locator('.vdb-live-strip')).to_contain_text('Buffer')
        prompt = pg.get_by_label('Prompt')
        prompt.fill('something <b>red</b>')
        prompt.press('Enter')
        shown.wait_colour('red')
        assert pg.locator('.vdb-live b', has_text='red').count() == 0, 'a prompt is text'
        expect(pg.get_by_role('img', name='something <b>red</b>')).to_be_visible()

        pg.get_by_label('Frames/s').select_option('30')
        pg.get_by_role('button', name='Pause').click()
        shown.status('paused')
        time.sleep(.3)
        at = len(shown.drawn())
        time.sleep(.5)
        assert len(shown.drawn()) == at, 'nothing comes while it is paused'
        prompt.fill('  ')
        prompt.press('Enter')
        expect(pg.get_by_role('status')).to_contain_text('a prompt is empty')
        pg.get_by_role('button', name='Save', exact=True).click()
        expect(pg.get_by_role('status')).to_contain_text('saved as something-b-red-b')
        prompt.fill('blue')
        pg.get_by_role('button', name='Play').click()  # What is typed counts
        shown.wait_colour('blue')
        for _ in range(2): pg.keyboard.press('Tab')
        stop.press('Enter')
        shown.status('stopped')

        numbers, told = shown.drawn(), shown.kernel_when('stopped')
        assert numbers == sorted(set(numbers)), 'in their order, each once'
        assert told['most'] <= 3, told
        assert len(list(lab[1].glob('something-b-red-b*.mp4'))) == 1
        if os.environ.get('VDB_SCREENSHOT'): pg.screenshot(path=os.environ['VDB_SCREENSHOT'])
        shown.ends_well()


@pytest.mark.timeout(600)
def test_two_views_a_reload_and_a_closed_tab(lab):
    with browser.page() as pg:
        shown = Watched(pg, *lab, model, 'live', 'live')
        pg.wait_for_selector(second + ' >> .vdb-live-play')
        shown.record()
        pg.locator(second + ' >> .vdb-live-play').click()
        shown.wait_drawn(15)
        told = shown.kernel()
        assert told['most'] <= 3 and told['pages'] == 1, 'two views in one page acknowledge once'
        one, two = pg.evaluate('window.drawn')
        assert one == two == sorted(set(one)), 'they show the same frames'

        browser.run_code(pg, 'live.window.grace_s = 120.')  # A slow machine reloads a page for longer than the usual five seconds
        pg.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        pg.wait_for_function('!window.jupyterapp.shell.currentWidget.context.model.dirty')
        pg.reload(wait_until='domcontentloaded')
        pg.wait_for_selector(second + ' >> canvas:not([hidden])')
        shown.status('playing')
        shown.record()
        shown.wait_drawn(10)
        assert shown.kernel()['pages'] == 2
        pg.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")  # No view is left
        pg.wait_for_selector('.vdb-live', state='detached')
        browser.run_code(pg, 'live.window.patience_s = live.window.grace_s = 5.')  # A page that is reloaded may not get its goodbye out, and is gone after 120 s
        shown.kernel_when('stopped')
        shown.ends_well()


@pytest.mark.timeout(600)
def test_a_busy_kernel_an_interrupt_and_a_restart(lab):
    from playwright.sync_api import expect
    with browser.page() as pg:
        shown = Watched(pg, *lab, model, 'live')
        shown.record()
        pg.locator('.vdb-live-play').click()
        shown.wait_drawn(10)
        browser.run_code(pg, 'time.sleep(600)')
        time.sleep(1)
        shown.wait_drawn(len(shown.drawn()) + 20)
        pg.locator('.vdb-live-stop').click()  # Played by its button, it is heard beside the cell
        shown.status('stopped')
        interrupt = "window.jupyterapp.commands.execute('notebook:interrupt-kernel')"
        pg.evaluate(interrupt)

        browser.run_code(pg, 'live.play()')  # Played by a cell, it is heard after the next
        shown.status('playing')
        shown.wait_drawn(len(shown.drawn()) + 10)
        browser.run_code(pg, 'time.sleep(600)')
        time.sleep(1)
        shown.wait_drawn(len(shown.drawn()) + 5)
        pg.locator('.vdb-live-stop').click()
        expect(pg.locator('.vdb-live-status')).to_contain_text('does not answer')
        pg.evaluate(interrupt)
        shown.status('stopped')
        pg.locator('.vdb-live-play').click()
        shown.status('playing')
        shown.wait_drawn(len(shown.drawn()) + 10)
        told = shown.kernel()
        assert told['most'] <= 3 and told['status'] == 'playing', told

        pg.evaluate('window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()')
        expect(pg.locator('.vdb-live-status')).to_contain_text('run the cell of this stream again')
        assert shown.hosts <= shown.expected
