"""How the page looks in a real browser: on a phone, in the dark, to a screen reader."""

import os
from pathlib import Path
from typing import Any

import pytest
from page_opening import Page, opened, pick
from service_running import Service

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytest_plugins = ["service_fixtures", "page_fixtures"]

LOAD_VISIBLE_THUMBNAILS = """Promise.all([...document.querySelectorAll(".thumbnail")]
    .filter((it) => it.getBoundingClientRect().top < innerHeight).map((it) => it.decode()))"""
UNNAMED_CONTROLS = """[...document.querySelectorAll("button, input, select, summary")]
    .filter((it) => it.checkVisibility())
    .filter((it) => !(it.ariaLabel || it.labels?.length || it.innerText?.trim()))
    .map((it) => it.outerHTML)"""
# WCAG's contrast of each text with the first opaque colour behind it.
PALE_TEXTS = """(() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3)
        .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (it) => {
        const color = numbers(getComputedStyle(it).backgroundColor);
        return color.length === 4 && color[3] === 0
            ? (it.parentElement ? behind(it.parentElement) : [255, 255, 255]) : color;
    };
    const hasText = (it) => [...it.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    return [...document.querySelectorAll("body *")]
        .filter((it) => it.checkVisibility() && hasText(it))
        .map((it) => {
            const two = [numbers(getComputedStyle(it).color), behind(it)].map(luminance);
            return [it.className || it.id || it.tagName,
                (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)];
        })
        .filter(([, contrast]) => contrast < 4.5);
})()"""


def test_page_fits_a_phone(page: Page, photos: Path) -> None:
    """At 390 px nothing has to be scrolled sideways."""
    page.set_viewport_size({"width": 390, "height": 844})
    pick(page, photos / "03.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_heading_and_count_stay_whole_on_a_phone(page: Page, photos: Path) -> None:
    """Side by side they would break into two lines each: the count goes below the heading."""
    page.set_viewport_size({"width": 375, "height": 812})
    pick(page, photos / "03.jpg")
    for name in ("#results-title", "#status"):
        lines = page.locator(name).evaluate(
            "it => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight)"
        )
        assert lines < 1.5


def test_long_file_name_takes_two_lines_and_no_width(page: Page, photos: Path) -> None:
    """A name without spaces is broken, and cut only after the second line."""
    page.set_viewport_size({"width": 375, "height": 812})
    pick(page, photos / "03.jpg")
    name = page.locator(".hit .name").first
    name.evaluate("it => { it.textContent = 'x'.repeat(32) + '.jpg'; }")
    measured = "it => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight)"
    assert name.evaluate(measured) == pytest.approx(2, abs=0.2)
    name.evaluate("it => { it.textContent = 'x'.repeat(255); }")
    assert name.evaluate(measured) == pytest.approx(2, abs=0.2)
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_phone_offers_its_camera(browser: Any, service: Service, photos: Path) -> None:
    """Where a finger points a photo can be taken; elsewhere the field would say the same twice."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, service.url, **phone) as page:
        camera = page.get_by_label("Take a photo")
        sync_api.expect(page.locator("#camera")).to_be_visible()
        assert camera.get_attribute("capture") == "environment"
        camera.set_input_files(photos / "05.jpg")
        sync_api.expect(page.locator(".hit .name").first).to_have_text("05.jpg")
    with opened(browser, service.url) as page:
        sync_api.expect(page.locator("#camera")).to_be_hidden()


def test_every_control_has_a_name_and_text_is_readable(
    browser: Any, service: Service, photos: Path
) -> None:
    """Screen readers find a name on each control; contrast is at least 4.5, light and dark."""
    for scheme in ("light", "dark"):
        with opened(browser, service.url, color_scheme=scheme) as page:
            pick(page, photos / "05.jpg")
            page.get_by_text("Filter").click()
            assert page.evaluate(UNNAMED_CONTROLS) == []
            assert page.evaluate(PALE_TEXTS) == []


def test_screenshot_is_written_where_asked(browser: Any, service: Service, photos: Path) -> None:
    """MULTIGRAIN_SCREENSHOT=file writes the README's picture, by default of the test's service.

    MULTIGRAIN_SCREENSHOT_URL and MULTIGRAIN_SCREENSHOT_PHOTO name another service and photo.
    """
    target = os.environ.get("MULTIGRAIN_SCREENSHOT")
    if not target:
        pytest.skip("MULTIGRAIN_SCREENSHOT names no file to write")
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.goto(os.environ.get("MULTIGRAIN_SCREENSHOT_URL", service.url))
    pick(page, Path(os.environ.get("MULTIGRAIN_SCREENSHOT_PHOTO", photos / "05.jpg")))
    page.evaluate(LOAD_VISIBLE_THUMBNAILS)
    page.screenshot(path=target)
    context.close()
    assert Path(target).read_bytes().startswith(b"\x89PNG")
