"""The page in a real browser: controls work, the console stays empty, nothing is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report.page import write_page
from bench.report.write import REPORT, read_story, write_report
from tests.report.made_up_run import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = """<script>document.title='taken'</script><img src=x onerror="document.title='taken'"> "'`&amp;"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Nine cases; the first, the fifth and the ninth differ from their goldens."""
    folder = tmp_path_factory.mktemp("runs") / "failing"
    made = make_run(folder, 9, changed_every=4, prompts=("panda", NASTY, "rocket", "strawberry"))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page with its console messages and its network requests."""

    def __init__(self, browser, path: Path, **context) -> None:
        self.said: list[str] = []
        self.requested: list[str] = []
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | context))
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser, run) -> Iterator[Watched]:
    watched = Watched(browser, run / REPORT)
    yield watched
    assert watched.said == []
    assert [url for url in watched.requested if not url.startswith("data:")] == [(run / REPORT).as_uri()]
    watched.context.close()


@pytest.fixture
def page(opened):
    return opened.page


def shown(page) -> list[str]:
    return page.locator(".case:visible").evaluate_all("cases => cases.map(one => one.dataset.title)")


def first(page):
    return page.locator(".case").first


def test_what_is_wrong_is_visible_without_scrolling(page):
    height = page.viewport_size["height"]
    for part in ("h1", ".case .problem >> nth=0", ".case .stage >> nth=0", ".case .stage >> nth=1"):
        box = page.locator(part).bounding_box()
        assert box["y"] + box["height"] <= height, part
    assert "3 of 9 cases failed" in page.locator("h1").text_content()


def test_a_filter_filters_and_says_how_many_are_left(page):
    assert len(shown(page)) == 9
    page.get_by_label("verdict").select_option("changed")
    assert len(shown(page)) == 3
    page.get_by_label("dtype").select_option("bfloat16")
    assert shown(page) == []
    assert page.locator("#filters output").text_content() == "0 of 9 shown"
    page.get_by_label("verdict").select_option("")
    page.get_by_label("dtype").select_option("")
    page.get_by_label("find").fill("UNIPC")
    assert len(shown(page)) == 1


def test_a_count_is_a_filter_too(page):
    page.get_by_role("link", name="6 identical").click()
    assert len(shown(page)) == 6
    assert page.get_by_label("verdict").input_value() == "identical"


def test_cases_are_sorted_as_asked(page):
    page.get_by_label("sort").select_option("title")
    names = shown(page)
    assert names == sorted(names)
    page.get_by_label("sort").select_option("seconds")
    times = page.locator(".case").evaluate_all("cases => cases.map(one => Number(one.dataset.seconds))")
    assert times == sorted(times, reverse=True)
    page.get_by_label("sort").select_option("")
    assert "failed" in first(page).get_attribute("class")


def clip(page) -> str:
    return first(page).locator(".stage img").nth(1).evaluate("one => one.style.clipPath")


def test_the_slider_moves_by_keyboard_and_by_pointer(page):
    case = first(page)
    case.get_by_text("slider", exact=True).click()
    assert clip(page) == "inset(0px 0px 0px 50%)"
    slider = case.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert clip(page) == "inset(0px 0px 0px 51%)"
    box = case.locator(".crop").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert float(slider.input_value()) == pytest.approx(25, abs=1)
    assert clip(page).startswith("inset(0px 0px 0px 25")


def test_the_slider_shows_the_golden_on_its_left_and_this_run_on_its_right(page):
    first(page).get_by_text("slider", exact=True).click()
    labels = first(page).locator(".stage img").evaluate_all("ones => ones.map(one => one.alt.split(':')[0])")
    assert labels == ["golden", "this run"]
    assert first(page).locator(".stage figcaption").text_content() == "left: golden, right: this run"


def test_blink_blinks_and_stops(page):
    case = first(page)
    case.get_by_text("blink", exact=True).click()
    caption = case.locator(".stage figcaption")
    for label in ("this run", "golden", "this run"):
        sync_api.expect(caption).to_have_text(label, timeout=3000)
    case.get_by_text("together", exact=True).click()
    assert case.locator(".stage").count() == 3
    before = case.locator(".stages").inner_html()
    page.wait_for_timeout(900)
    assert case.locator(".stages").inner_html() == before


def test_the_difference_says_what_its_brightest_colour_stands_for(page):
    case = first(page)
    case.get_by_text("difference", exact=True).click()
    assert "brightest: " in case.locator(".stage figcaption").text_content()
    assert case.locator(".stage").count() == 1


def test_zoom_shows_the_right_tile_at_pixel_level(page):
    case = first(page)
    case.get_by_role("radio", name="tile 3, SSIM").check(force=True)
    case.get_by_label("zoom").select_option("8")
    stage = case.locator(".stage").first
    crop, image = stage.locator(".crop"), stage.locator("img")
    assert crop.evaluate("one => [one.offsetWidth, one.offsetHeight]") == [8 * 64, 8 * 64]
    assert image.evaluate("one => [one.style.left, one.offsetWidth]") == [f"{-2 * 64 * 8}px", 4 * 64 * 8]
    assert image.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    assert image.get_attribute("alt").endswith("tile 3")


def test_everything_works_by_keyboard(page):
    second = page.locator(".case").nth(1)
    second.locator("> summary").focus()
    page.keyboard.press("Enter")
    sync_api.expect(second.locator(".controls")).to_be_visible()
    second.get_by_role("radio", name="together").focus()
    page.keyboard.press("ArrowRight")
    assert second.get_by_role("radio", name="slider").is_checked()
    page.keyboard.press("ArrowRight")
    assert second.get_by_role("radio", name="blink").is_checked()


def test_a_mark_of_a_plot_shows_its_picture_and_links_to_its_case(page):
    mark = page.locator("#quality .chart svg a").last
    mark.scroll_into_view_if_needed()
    mark.hover()
    sync_api.expect(page.locator("#peek img")).to_be_visible()
    key = mark.get_attribute("xlink:href")
    assert "SSIM" in page.locator("#peek").text_content()
    mark.click()
    assert page.locator(f'[id="{key[1:]}"]').evaluate("one => one.open")
    page.keyboard.press("Escape")


def test_marks_of_a_plot_are_one_tab_stop_with_arrow_keys(page):
    marks = page.locator("#quality .chart svg").first.locator("a")
    assert marks.evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1
    marks.first.focus()
    page.keyboard.press("ArrowRight")
    assert marks.nth(1).evaluate("one => one === document.activeElement")
    sync_api.expect(page.locator("#peek")).to_be_visible()


def test_settings_and_command_can_be_copied(page, opened):
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first(page).get_by_role("button", name="copy the command").click()
    sync_api.expect(first(page).get_by_role("button", name="copy the command")).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == first(page).locator("pre.copy").first.text_content()
    assert copied.startswith("pytest ")


def test_a_prompt_full_of_markup_stays_text(page):
    assert page.title() != "taken"
    assert NASTY in first(page).locator(".tiles td").all_text_contents()


def test_an_address_opens_its_case_even_if_a_filter_hides_it(page):
    key = page.locator(".case").last.get_attribute("id")
    page.get_by_label("verdict").select_option("changed")
    page.evaluate("key => { location.hash = key }", key)
    sync_api.expect(page.locator(f'[id="{key}"] .controls')).to_be_visible()


def test_without_scripts_all_pictures_and_numbers_are_there(browser, run):
    watched = Watched(browser, run / REPORT, java_script_enabled=False)
    page = watched.page
    assert page.locator("#filters").is_hidden()
    assert page.locator(".case > summary img").count() == 9
    failed = first(page)
    assert failed.locator(".viewer figcaption").all_text_contents()[0] == "golden"
    assert failed.locator(".viewer img").count() == 2
    sync_api.expect(failed.locator(".scores")).to_be_visible()
    sync_api.expect(page.locator(".chart svg").first).to_be_visible()
    page.locator(".case > summary").nth(1).click()
    sync_api.expect(page.locator(".case").nth(1).locator(".tiles")).to_be_visible()
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_a_phone(browser, run, scheme):
    watched = Watched(browser, run / REPORT, viewport={"width": 375, "height": 700}, color_scheme=scheme)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert watched.said == []
    watched.context.close()


def test_pictures_beside_the_page_are_shown_from_disk(browser, run, tmp_path):
    write_page(read_story([run]), tmp_path / REPORT, largest_within=0)
    watched = Watched(browser, tmp_path / REPORT)
    image = watched.page.locator(".case > summary img").first
    image.scroll_into_view_if_needed()
    watched.page.wait_for_function("one => one.naturalWidth === 256", arg=image.element_handle())
    assert watched.said == []
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_problem(browser, run, scheme):
    watched = Watched(browser, run / REPORT, color_scheme=scheme, bypass_csp=True)
    page = watched.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_timeout(300)
    found = axe.Axe().run(page).response
    assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found["violations"]] == []
    assert len(found["passes"]) > 20
    watched.context.close()
