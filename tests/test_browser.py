"What a person sees, in a real JupyterLab and a real browser."
import os

import pytest

import browser
import pipelines


@pytest.mark.timeout(900)
def test_the_form_generates_a_clip_and_shows_its_scores(tmp_path):
    browser.chromium()
    from playwright.sync_api import expect
    settings = pipelines.save('ltx', tmp_path/'model')
    browser.write_notebook(tmp_path/'form.ipynb', f'''import vdb
from dataclasses import replace
from vdb.core import Settings
from vdb.widgets.form import try_it
model = vdb.load({str(tmp_path/'model')!r})
model.defaults = replace(model.defaults, **{settings!r})
form = try_it(model, metrics=['temporal_flicker', 'sharpness'])
form''')
    expect.set_options(timeout=180_000)
    with browser.lab(tmp_path) as address, browser.page() as pg:
        browser.run_all(pg, address, 'form.ipynb')
        prompt = pg.locator('.vdb-prompt input')
        prompt.fill('a blue square <b>moves</b> left')
        prompt.press('Tab')
        seed = pg.locator('.vdb-seed input')
        seed.fill('7')
        seed.press('Tab')
        steps = pg.locator('.vdb-steps .noUi-handle')
        steps.focus()
        steps.press('ArrowRight')
        pg.locator('.vdb-generate').click()
        expect(pg.locator('.vdb-status')).to_contain_text('seed 7, 3 steps')
        clip = pg.locator('.vdb-clip video')
        expect(clip).to_be_visible()
        pg.wait_for_function("document.querySelector('.vdb-clip video').readyState >= 2")
        assert pg.evaluate("document.querySelector('.vdb-clip video').duration") > 0
        expect(pg.locator('.vdb-clip figcaption')).to_have_text('a blue square <b>moves</b> left')
        expect(pg.locator('.vdb-scores')).to_contain_text('Temporal flicker')
        first = clip.get_attribute('src')
        if os.environ.get('VDB_SCREENSHOT'): pg.screenshot(path=os.environ['VDB_SCREENSHOT'])

        prompt.fill('   ')  # an error is a sentence in the form, which is ready for the next try
        prompt.press('Tab')
        pg.locator('.vdb-generate').click()
        expect(pg.locator('.vdb-status [role=alert]')).to_contain_text('a prompt is empty')
        expect(clip).to_have_count(0)
        prompt.fill('a blue square <b>moves</b> left')
        prompt.press('Tab')
        pg.locator('.vdb-generate').click()
        expect(clip).to_be_visible()
        assert clip.get_attribute('src') == first, 'the same prompt, seed and steps are the same clip'
