"""The page in a real browser: nothing fails or is fetched, and it works by keyboard, on a phone and in the dark."""

import shutil

import pytest

from maskmatch.commands.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(run, record, tmp_path_factory):
    """The page of one run, and of two."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [record(shutil.copytree(run, folder / name, symlinks=True)) for name in ("a" * 60, "two")]
    assert main([str(runs[0]), "--output", str(folder / "one.html")]) == 0
    assert main([*map(str, runs), "--output", str(folder / "both.html")]) == 0
    return folder


@pytest.fixture
def open_page(browser, pages):
    """A function that opens a page; what went wrong or was asked for outside of it fails the test."""
    contexts, requests, problems = [], [], []

    def call(name, **options):
        context = browser.new_context(**{"viewport": DESKTOP} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((pages / name).as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert not problems
    assert not [url for url in requests if not url.startswith(("file:", "data:"))] and requests


@pytest.mark.parametrize("name", ["one.html", "both.html"])
def test_every_picture_is_there(open_page, name):
    page = open_page(name)
    broken = "[...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(broken) == 0 and page.evaluate("document.images.length") > 0


def test_the_slider_moves_the_mask_by_keyboard(open_page):
    page = open_page("one.html")
    slider = page.locator(".slider").first
    covered = "getComputedStyle(document.querySelector('.layer:not(.off)')).clipPath"
    assert page.evaluate(covered) == "inset(0px 0px 0px 50%)"
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(covered) == "inset(0px 0px 0px 52%)"
    assert page.evaluate("getComputedStyle(document.querySelector('.stage')).outlineStyle") == "solid"
    page.keyboard.press("Home")
    assert page.evaluate(covered) == "inset(0px 0px 0px 0%)"
    page.keyboard.press("End")
    assert page.evaluate(covered) == "inset(0px 0px 0px 100%)"


def test_the_mask_is_chosen_by_keyboard(open_page):
    page = open_page("one.html")
    page.locator(".which input").first.focus()
    for chosen in ("prediction", "truth", "errors"):
        shown = page.locator(".stage").first.locator(".layer:visible img")
        assert shown.count() == 1 and shown.get_attribute("alt").startswith(f"{chosen} of ")
        page.keyboard.press("ArrowDown")


def test_everything_is_reached_by_tab(open_page):
    page = open_page("one.html")
    reached, focused = set(), "[...document.activeElement.classList, document.activeElement.localName]"
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.update(page.evaluate(focused))
    assert {"skip", "a", "svg", "scroll", "slider", "summary", "input"} <= reached


def test_a_curve_is_read_by_keyboard(open_page):
    page = open_page("one.html")
    chart = page.locator(".chart").first
    chart.locator("> svg").focus()
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").all_inner_texts() == ["30.0 %", "20.0 %"]
    assert chart.locator(".at").inner_text() == "at step 2"
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").all_inner_texts() == ["60.0 %", "40.0 %"]
    page.keyboard.press("Tab")
    assert chart.locator(".at").inner_text() == ""


@pytest.mark.parametrize("name", ["one.html", "both.html"])
@pytest.mark.parametrize("javascript", [True, False])
def test_a_phone_shows_the_whole_width(open_page, name, javascript):
    page = open_page(name, viewport=PHONE, java_script_enabled=javascript)
    # evaluated by the browser's own protocol, which also works where the page has no JavaScript
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    too_wide = """[...document.querySelectorAll("h1, h2, h3, p, li, dt, dd, figure, svg.chart, .stage")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth && !element.closest(".scroll"))
        .map((element) => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(too_wide) == []


def test_without_javascript_photo_and_masks_stand_side_by_side(open_page):
    page = open_page("one.html", java_script_enabled=False)
    stage = page.locator(".stage").first
    assert stage.locator("img:visible").count() == 4
    boxes = [view.bounding_box() for view in stage.locator(".view").all()]
    places = {(box["x"], box["y"]) for box in boxes}
    assert len(places) == 4 and page.locator(".slider:visible, .which:visible").count() == 0


def test_print_has_every_picture_and_every_detail(open_page):
    page = open_page("one.html")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".stage").first.locator("img:visible").count() == 4
    assert page.locator("details:not([open])").count() == 0 and page.locator(".slider:visible").count() == 0
    assert luminance(page, "--paper") > 0.9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_each_scheme_are_legible(open_page, scheme):
    page = open_page("one.html", color_scheme=scheme)
    paper = luminance(page, "--paper")
    assert paper > 0.9 if scheme == "light" else paper < 0.05
    for color, least in (("--ink", 7), ("--soft", 4.5), ("--link", 4.5), *((f"--c{i}", 3) for i in range(6))):
        ratio = contrast(paper, luminance(page, color))
        assert ratio >= least, f"{color}: {ratio:.2f}"


def luminance(page, name):
    """Relative luminance (WCAG 2) of a custom property of the page."""
    probe = """(name) => {
        const probe = document.body.appendChild(document.createElement("i"));
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    }"""
    color = page.evaluate(probe, name)
    red, green, blue = (
        value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in color
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    lighter, darker = max(one, other), min(one, other)
    return (lighter + 0.05) / (darker + 0.05)
