"The explorer of a search, in a real JupyterLab and a real browser."
import os
import time

import pytest

import browser
from test_live import lab  # noqa: F401

# A model whose clips are as bright as they have steps
model = '''import time, numpy as np
from vdb.core import Settings, Video
from vdb.optimize.space import Categorical, Integer, Real, Space
from vdb.widgets.explorer import explore, TuneExplorer

class Known:
    name, defaults = 'known', Settings(frames=5, height=32, width=32, fps=8., steps=10, guidance=4.)
    def fingerprint(self): return dict(name=self.name)
    def generate(self, prompt, seed, settings):
        time.sleep(.02)
        if settings.steps > 14: raise MemoryError('nothing <b>left</b>')
        frames = np.full((5, 32, 32, 3), 10*settings.steps + seed, np.uint8)
        frames[1::2] += np.uint8(2*settings.steps + settings.guidance + len(prompt.text))
        return Video(frames, 8.)

space = Space(dict(steps=Integer(1, 16), guidance=Real(1, 8), rescale=Categorical(['no', 'yes'], when='guidance > 4')))
how = dict(maximize=['temporal_flicker', 'sharpness'], space=space, strategy='random', suite=['a'*n for n in range(1, 9)], recheck_seeds=1, unseen_seeds=1, margins=dict(sharpness=9.))'''
widget = '.vdb-tune'


class Page(browser.Watched):
    "A page with an explorer in it."
    def __init__(self, pg, address: str, folder, *cells: str) -> None: super().__init__(pg, address, folder, widget, *cells)

    def status(self, wanted: str) -> None: self.pg.wait_for_selector(f'{widget}[data-status={wanted}]')
    def asked(self, expression: str) -> object: return browser.asked(self.pg, expression, self.folder)

    def asked_until(self, expression: str, holds) -> object:
        end = time.monotonic() + 60
        while not holds(told := self.asked(expression)):
            assert time.monotonic() < end, told
            time.sleep(.2)
        return told

    def drag(self, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        "Across a plot, by shares of its width and height."
        self.pg.locator(f'.vdb-tune-{name}').scroll_into_view_if_needed()
        box = self.pg.locator(f'.vdb-tune-{name}').bounding_box()
        (x0, y0), (x1, y1) = ((box['x'] + x*box['width'], box['y'] + y*box['height']) for x, y in (start, end))
        self.pg.mouse.move(x0, y0)
        self.pg.mouse.down()
        self.pg.mouse.move(x1, y1, steps=6)
        self.pg.mouse.up()

    def rows(self) -> list[int]: return [int(x) for x in self.pg.locator('.vdb-tune-table tbody tr').evaluate_all('rows => rows.map(r => r.dataset.trial)')]


@pytest.mark.timeout(600)
def test_brush_select_see_the_clip_and_stop_a_running_search(lab):  # noqa: F811
    from playwright.sync_api import expect
    address, folder = lab
    with browser.page(1280, 1400) as pg:
        shown = Page(pg, address, folder, model, f"explorer = explore(Known(), budget=400, out={str(folder/'long')!r}, **how)", 'explorer')
        play, pause, stop = (pg.get_by_role('button', name=name, exact=True) for name in ('Play', 'Pause', 'Stop'))
        pg.wait_for_function("document.querySelectorAll('.vdb-tune-table tbody tr').length > 25")
        expect(play).to_be_disabled()
        pause.click()
        shown.status('paused')
        at = shown.asked('len(explorer.tuning.trials)')
        time.sleep(1)
        assert shown.asked('len(explorer.tuning.trials)') == at, 'nothing is made while it is paused'
        trials = {row['trial']: row for row in shown.asked("explorer.tuning.table.to_dict('records')") if row['state'] != 'begun'}

        pg.locator('.vdb-tune-x').select_option('params_steps')  # The scatter, over steps: its left half
        shown.drag('scatter', (.12, .04), (.5, .8))
        selected = shown.asked_until('explorer.selected', len)
        assert set(selected) == {n for n, row in trials.items() if row['state'] == 'ok' and row['params_steps'] < max(trials[n]['params_steps'] for n in selected) + 1}
        assert 0 < len(selected) < len(trials) and sorted(shown.rows()) == sorted(selected), 'the table shows what is brushed'
        assert shown.asked('explorer.table["trial"].tolist()') == sorted(selected)
        expect(pg.locator('.vdb-tune-count')).to_contain_text(f'{len(selected)} of {len(trials)} selected')
        box = pg.locator('.vdb-tune-parallel').bounding_box()
        lane = 40/box['width']
        shown.drag('parallel', (lane, .2), (lane, .75))  # And all but the fewest steps, along their axis
        fewer = shown.asked_until('explorer.selected', lambda now: now != selected)
        assert fewer and set(fewer) < set(selected), 'both brushes count'
        assert min(trials[n]['params_steps'] for n in fewer) > min(trials[n]['params_steps'] for n in selected)
        pg.get_by_role('button', name='Clear').click()
        assert shown.asked_until('explorer.selected', lambda now: not now) == []
        browser.run_code(pg, 'explorer.selected = [0, 3]')
        pg.wait_for_function("document.querySelectorAll('.vdb-tune-table tbody tr').length == 2")
        browser.run_code(pg, 'explorer.selected = []')

        failed = next(n for n, row in trials.items() if row['state'] == 'failed')
        first = next(n for n, row in trials.items() if n and row['state'] == 'ok')
        for n in (0, first, failed): pg.locator(f'.vdb-tune-table tr[data-trial="{n}"] button').click()
        pg.wait_for_function("[...document.querySelectorAll('.vdb-tune-pin video')].filter(v => v.readyState >= 2 && !v.paused).length == 2")
        assert shown.asked_until('explorer.pinned', lambda now: len(now) == 3) == [0, first, failed]
        lost = pg.locator(f'.vdb-tune-pin[data-trial="{failed}"]')
        expect(lost).to_contain_text('nothing <b>left</b>')
        expect(lost.locator('video')).to_have_count(0)
        bright = pg.locator(f'.vdb-tune-pin[data-trial="{first}"] video').evaluate('''v => { const c = document.createElement('canvas'), g = c.getContext('2d');
            [c.width, c.height] = [8, 8]; g.drawImage(v, 0, 0, 8, 8); return g.getImageData(4, 4, 1, 1).data[0] }''')
        steps = trials[first]['params_steps']
        assert 10*steps - 12 <= bright <= 13*steps + 30, 'it is the clip of these settings'
        lost.get_by_role('button', name='Unpin').click()
        assert shown.asked_until('explorer.pinned', lambda now: len(now) == 2) == [0, first]

        pg.locator('.vdb-tune-scatter').scroll_into_view_if_needed()
        places = pg.locator('.vdb-tune-scatter').bounding_box()
        for share in range(12, 96, 2):  # Until the pointer rests on a trial that failed, in the strip under the plot
            pg.mouse.move(places['x'] + places['width']*share/100, places['y'] + places['height'] - 20)
            if pg.locator('.vdb-tune-tip').is_visible(): break
        expect(pg.locator('.vdb-tune-tip')).to_contain_text('MemoryError')
        assert pg.locator('.vdb-tune-tip b', has_text='left').count() == 0, 'a reason is text'

        pg.locator(f'.vdb-tune-pin[data-trial="{first}"]').get_by_role('button', name='Start from these settings').click()
        typed = pg.locator('.vdb-tune-try').get_by_label('guidance')
        assert float(typed.input_value()) == trials[first]['params_guidance']
        typed.fill('2.125')
        pg.get_by_role('button', name='Try this point').click()
        expect(pg.locator('.vdb-tune-status')).to_contain_text('guidance 2.125 is tried next')
        play.click()
        tried = shown.asked_until("[x.config['guidance'] for x in explorer.tuning.trials if x.origin == 'person' and x.done]", len)
        assert tried == [2.125]
        stop.click()
        shown.status('stopped')
        assert not shown.asked("[x.name for x in __import__('threading').enumerate() if x.name == 'vdb-search']")
        stopped = shown.asked('len(explorer.tuning.trials)')
        assert stopped < 401
        play.click()
        shown.asked_until('len(explorer.tuning.trials)', lambda n: n > stopped + 1)
        stop.click()
        shown.status('stopped')
        if os.environ.get('VDB_SCREENSHOT'): pg.locator(widget).screenshot(path=os.environ['VDB_SCREENSHOT'])
        shown.ends_well()


@pytest.mark.timeout(600)
def test_a_search_of_another_process_a_thumbnail_and_a_reload(lab):  # noqa: F811
    from playwright.sync_api import expect
    address, folder = lab
    out = str(folder/'other')
    with browser.page(1280, 1400) as pg:
        make = f"from vdb.optimize.search import tune\ntune(Known(), budget=3, out={out!r}, progress=False, **how)"
        shown = Page(pg, address, folder, model, make, f'explorer = TuneExplorer({out!r})', 'explorer', 'explorer')
        pg.wait_for_function(f"document.querySelectorAll('{widget}').length == 2")
        first = pg.locator(widget).first
        for name in ('Play', 'Pause', 'Stop'): expect(first.get_by_role('button', name=name, exact=True)).to_be_hidden()
        first.locator('.vdb-tune-y').select_option('trial')
        first.locator('.vdb-tune-x').select_option('trial')  # A diagonal, on which each is where it has to be
        box = first.locator('.vdb-tune-scatter').bounding_box()
        for share in range(0, 50):
            pg.mouse.move(box['x'] + 55 + share, box['y'] + box['height'] - 45 - share*.7)
            if first.locator('.vdb-tune-tip').is_visible(): break
        expect(first.locator('.vdb-tune-tip')).to_contain_text('Trial 0')
        expect(first.locator('.vdb-tune-thumb img')).to_be_visible()
        first.locator('.vdb-tune-table tr[data-trial="1"] button').click()
        pg.wait_for_function("[...document.querySelectorAll('.vdb-tune-pin video, .vdb-tune-pin .vdb-tune-screen:not(:empty)')].length >= 2")  # In both views

        browser.run_code(pg, f'tune(Known(), budget=5, out={out!r}, progress=False, **how)')
        pg.wait_for_function("document.querySelectorAll('.vdb-tune-table tbody tr').length == 12")  # Six in each
        pg.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        pg.wait_for_function('!window.jupyterapp.shell.currentWidget.context.model.dirty')
        pg.reload(wait_until='domcontentloaded')
        pg.wait_for_function("document.querySelectorAll('.vdb-tune-table tbody tr').length == 12")
        assert shown.asked('explorer.pinned') == [1]
        expect(pg.locator('.vdb-tune-pin')).to_have_count(2)
        pg.evaluate('window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()')
        pg.locator('.vdb-tune-table tr[data-trial="2"] button').first.click()
        expect(pg.locator('.vdb-tune-status').first).to_contain_text('run the cell of this explorer again')
        assert shown.hosts <= shown.expected
