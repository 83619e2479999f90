"""The page in a real browser: pick a photo, see neighbours, search from one, read an error."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_running import Service

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytest_plugins = ["service_fixtures"]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Page = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Page]:
    """The opened page; a script error or a breach of its policy fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(10_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: faults.append(message.text) if "Policy" in message.text else None,
    )
    page.goto(service.url)
    yield page
    context.close()
    assert faults == []


def pick(page: Page, path: Path) -> None:
    page.set_input_files("#picker", path)
    page.wait_for_selector('[data-state="answered"]')


def test_page_shows_the_collection_and_asks_for_a_photo(page: Page) -> None:
    """Before a search there is the size of the collection and an invitation, no error."""
    sync_api.expect(page.locator("#collection")).to_have_text("12 photos")
    sync_api.expect(page.locator("#invitation")).to_be_visible()
    sync_api.expect(page.locator("#error")).to_be_hidden()


def test_picked_photo_finds_itself_first(page: Page, photos: Path) -> None:
    """Neighbours appear as loaded thumbnails with rank, four-digit cosine and file name."""
    pick(page, photos / "05.jpg")
    first = page.locator(".hit").first
    sync_api.expect(first.locator(".rank")).to_have_text("#1")
    sync_api.expect(first.locator(".score")).to_have_text("1.0000")
    sync_api.expect(first.locator(".name")).to_have_text("05.jpg")
    sync_api.expect(page.locator(".hit")).to_have_count(12)
    sync_api.expect(page.locator("#status")).to_contain_text("12 found")
    sync_api.expect(page.locator("#timing-total")).to_contain_text("ms")
    first.locator("img").evaluate("image => image.decode()")
    assert first.locator("img").evaluate("image => image.naturalWidth") == 96


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_hit_becomes_the_next_query(page: Page, photos: Path, *, by_keyboard: bool) -> None:
    """A click on a hit, or Enter, searches from it: it is then its own first neighbour."""
    pick(page, photos / "05.jpg")
    third = page.locator(".hit").nth(2)
    name = third.locator(".name").inner_text()
    if by_keyboard:
        third.locator("button").focus()
        page.keyboard.press("Enter")
    else:
        third.locator("button").click()
    sync_api.expect(page.locator("#caption")).to_contain_text(f"{name} · 96")
    sync_api.expect(page.locator(".hit .name").first).to_have_text(name)
    sync_api.expect(page.locator("#results")).to_be_focused()


def test_file_that_is_no_photo_shows_the_detail_of_the_problem(
    page: Page, photos: Path, tmp_path: Path
) -> None:
    """The service's own words are shown as an alert, and the next photo clears it."""
    bad = tmp_path / "notes.jpg"
    bad.write_text("these are notes")
    page.set_input_files("#picker", bad)
    sync_api.expect(page.get_by_role("alert")).to_contain_text("no photo of an accepted format")
    sync_api.expect(page.locator(".hit")).to_have_count(0)
    sync_api.expect(page.locator("#results-title")).to_be_hidden()
    pick(page, photos / "01.jpg")
    sync_api.expect(page.locator("#error")).to_be_hidden()


def test_dropped_and_pasted_photos_are_searched(page: Page, photos: Path) -> None:
    """A photo may be dropped anywhere on the page or pasted."""
    numbers = list((photos / "02.jpg").read_bytes())
    for kind, carrier in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.reload()
        page.evaluate(
            """([numbers, kind, carrier]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(numbers)], `${kind}.jpg`));
                const Event = kind === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(
                    new Event(kind, { [carrier]: data, bubbles: true, cancelable: true }));
            }""",
            [numbers, kind, carrier],
        )
        sync_api.expect(page.locator("#caption")).to_contain_text(f"{kind}.jpg · 96")
        sync_api.expect(page.locator(".hit .name").first).to_have_text("02.jpg")


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


def test_gone_original_is_said_not_shown_broken(
    page: Page, photos: Path, jpeg: Callable[[int], bytes]
) -> None:
    """A hit whose original was deleted stays in the list and says that it is gone."""
    lost = photos / "09.jpg"
    data = jpeg(9)
    lost.unlink()
    try:
        pick(page, photos / "08.jpg")
        gone = page.locator(".hit.gone")
        sync_api.expect(gone).to_have_count(1)
        sync_api.expect(gone.locator(".name")).to_have_text("09.jpg")
    finally:
        lost.write_bytes(data)


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
    page.wait_for_load_state("networkidle")
    page.screenshot(path=target)
    context.close()
    assert Path(target).read_bytes().startswith(b"\x89PNG")
