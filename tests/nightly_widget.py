"""From a frame's push in the kernel to its picture in a page: 30 frames/s of 256 x 256 through `LiveStream`, in a real JupyterLab and a real Chromium. As a dated JSON file, and pictures of the widget for the documentation. `python tests/nightly_widget.py --out papers/results --pictures nbs/images`"""
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from record import keep, options

import browser

cells = ['''import json, time
import numpy as np
from vdb.core import Settings
from vdb.widgets.live import LiveStream

class Gradients:
    "Moving gradients with noise, which no codec makes small. Nothing is computed: the figure is that of the way to the page."
    name, context, defaults, device = 'gradients', 1, Settings(frames=8, height=256, width=256, fps=30., steps=1), 'cpu'
    def __init__(self):
        rng, x = np.random.default_rng(0), np.arange(256)
        plain = [np.stack([np.tile((x + 4*k) % 256, (256, 1)), np.tile((x[:, None] + 3*k) % 256, (1, 256)), np.full((256, 256), 2*k % 256)], -1) for k in range(64)]
        self.frames, self.at = np.stack([np.clip(f + rng.normal(0, 8, f.shape), 0, 255) for f in plain]).astype(np.uint8), 0
    def fingerprint(self): return dict(name=self.name)
    def first(self, prompt, seed, settings, on_step=None):
        self.at += 8
        return self.frames[[k % 64 for k in range(self.at - 8, self.at)]]
    def extend(self, frames, prompt, seed, settings, on_step=None): return self.first(prompt, seed, settings)

pushed, sent = {}, []
class Timed(LiveStream):
    def _on_frame(self, frame):
        pushed[id(frame.pixels)] = time.time()
        super()._on_frame(frame)
    def _send_frame(self, seq, frame):
        super()._send_frame(seq, frame)
        sent.append((seq, pushed[id(frame)]))
live = Timed(Gradients(), 'gradients')
live''']


def run(folder: Path, seconds: float) -> dict:
    browser.write_notebook(folder/'live.ipynb', *cells)
    with browser.lab(folder) as address, browser.page() as pg:
        browser.run_all(pg, address, 'live.ipynb')
        pg.wait_for_selector('.vdb-live-play')
        pg.evaluate('''() => { window.drawn = []; const c = document.querySelector('.vdb-live canvas');
            new MutationObserver(() => window.drawn.push([+c.dataset.seq, performance.timeOrigin + performance.now()]))
                .observe(c, {attributes: true, attributeFilter: ['data-seq']}) }''')
        pg.locator('.vdb-live-play').click()
        time.sleep(seconds)
        pg.locator('.vdb-live-stop').click()
        pg.wait_for_function("document.querySelector('.vdb-live').dataset.status == 'stopped'")
        drawn = pg.evaluate('window.drawn')
        told = browser.asked(pg, 'dict(sent=sent, pushed=live.window.pushed, dropped=live.window.dropped, most=live.window.most)', folder)
    at, when = dict(map(tuple, told['sent'])), np.array([t for _, t in drawn])/1000
    late = np.array([t/1000 - at[n] for n, t in drawn])*1000
    settled = when > when[0] + 2  # Two seconds in which everything is new
    rate = (settled.sum() - 1)/(when[settled][-1] - when[settled][0])
    return dict(seconds=seconds, drawn=len(drawn), in_order=[n for n, _ in drawn] == sorted(n for n, _ in drawn), pushed=told['pushed'], dropped=told['dropped'],
                most_under_way=told['most'], shown_s=round(float(rate), 2), push_to_drawn_ms={f'p{q}': round(float(np.percentile(late[settled], q)), 1) for q in (50, 95, 99)})


def draw(folder: Path, out: Path) -> None:
    "The widget as it looks, playing the embedded model, in the light and the dark theme of JupyterLab."
    out.mkdir(parents=True, exist_ok=True)
    browser.write_notebook(folder/'look.ipynb', "from vdb.widgets.live import LiveStream\nlive = LiveStream('tiny', fps=12)", 'live')
    with browser.lab(folder) as address, browser.page() as pg:
        browser.run_all(pg, address, 'look.ipynb')
        pg.locator('.vdb-live-play').click()
        for theme, prompt in (('Light', 'a red circle moves right quickly on a black background'), ('Dark', 'a blue square moves left slowly on a white background')):
            pg.get_by_label('Prompt').fill(prompt)
            pg.get_by_label('Prompt').press('Enter')
            pg.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
            time.sleep(10)
            file = out/f'live_{theme.lower()}.png'
            pg.locator('.vdb-live').screenshot(path=file)
            Image.open(file).convert('RGB').quantize(128).save(file, optimize=True)


def main() -> int:
    ask = options(__doc__, seconds=20., pictures='')
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), ask.seconds)
        if ask.pictures: draw(Path(folder), Path(ask.pictures))
    passed = found['in_order'] and found['most_under_way'] <= 3 and found['shown_s'] >= 28 and found['push_to_drawn_ms']['p95'] < 100
    keep('widget', ask.out, 1, passed=passed, load=os.getloadavg(), **found)
    print(found)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
