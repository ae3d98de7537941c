"""How the report grows: time to build it, its size, and how soon the page is usable (``-m harness -rP``)."""

import shutil
import time

import pytest

from bench.report.write import write_report
from tests.report.made_up_run import make_run

CHROMIUM = shutil.which("chromium")


def usable_after(path):
    """Seconds from asking for a page until a filter that was typed into it is drawn."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto("about:blank")
        began = time.perf_counter()
        page.goto(path.as_uri())
        page.get_by_label("find").fill("unipc")
        page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        passed = time.perf_counter() - began
        browser.close()
    return passed


@pytest.mark.harness
@pytest.mark.parametrize("count", [50, 500, 5000])
def test_report(count, tmp_path):
    run = make_run(tmp_path / "run", count)
    began = time.perf_counter()
    page = write_report(run)
    built = time.perf_counter() - began
    assert page.path.is_file()
    within = "beside it" if page.pictures else "within it"
    usable = f"{usable_after(page.path):.1f} s" if CHROMIUM else "not known, no chromium"
    print(f"{count} cases: built in {built:.1f} s, {page.size / 1e6:.1f} MB, pictures {within}, usable after {usable}")
