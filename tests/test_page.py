"""The page in a real browser: pick a photo, see neighbours, search from one, read an error."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_opening import Page, opened, pick
from pydantic import SecretStr
from service_running import Service, running

from service.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytest_plugins = ["service_fixtures", "page_fixtures"]


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
    """A click on a hit, or Enter, searches from it: the others come, by the stored embedding."""
    pick(page, photos / "05.jpg")
    third = page.locator(".hit").nth(2)
    name = third.locator(".name").inner_text()
    if by_keyboard:
        third.locator("button").focus()
        page.keyboard.press("Enter")
    else:
        third.locator("button").click()
    sync_api.expect(page.locator("#status")).to_contain_text("11 found")
    sync_api.expect(page.locator("#caption")).to_have_text(name)
    assert name not in page.locator(".hit .name").all_inner_texts()
    sync_api.expect(page.locator("#results")).to_be_focused()
    preview = page.locator("#preview")
    preview.evaluate("image => image.decode()")
    assert preview.evaluate("image => image.naturalWidth") == 96


def test_switch_leaves_one_of_near_duplicates(
    browser: Any, asked: Service, jpeg: Callable[[int], bytes], tmp_path: Path
) -> None:
    """By keyboard too; the hit that stays says for how many it stands, and the switch goes back."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(0))
    answer = asked.search(jpeg(0), limit=24, dedup="true").json()
    left, num_photos = answer["collapsed"], answer["count"] + answer["collapsed"]
    assert answer["results"][0]["collapsed"] > 0
    with opened(browser, asked.url) as page:
        pick(page, photo)
        sync_api.expect(page.locator(".hit")).to_have_count(num_photos)
        switch = page.get_by_role("switch", name="One of near-duplicates")
        switch.focus()
        page.keyboard.press("Space")
        status = page.locator("#status")
        sync_api.expect(status).to_contain_text(re.compile(rf"first, {left} near-duplicates? left"))
        sync_api.expect(page.locator(".hit")).to_have_count(answer["count"])
        first = page.locator(".hit").first
        stands_for = answer["results"][0]["collapsed"]
        sync_api.expect(first.locator(".collapsed")).to_have_text(f"+{stands_for}")
        sync_api.expect(first.locator("button")).to_have_accessible_name(
            re.compile(rf" with {stands_for} near-duplicates?\. Search")
        )
        name = first.locator(".name").inner_text()
        first.locator("button").click()
        sync_api.expect(page.locator("#caption")).to_have_text(name)
        with page.expect_request("**/similar?*") as sent:
            switch.uncheck()
        assert "dedup" not in sent.value.url
        sync_api.expect(page.locator(".hit")).to_have_count(num_photos - 1)
        sync_api.expect(status).to_have_text(f"{num_photos - 1} found, nearest first")


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


def test_timing_is_that_of_the_header(page: Page, photos: Path) -> None:
    """Each stage of Server-Timing has its part of the bar and its line."""
    with page.expect_response("**/search?*") as answered:
        pick(page, photos / "05.jpg")
    header = answered.value.headers["server-timing"]
    stages = [entry.split(";")[0].strip() for entry in header.split(",")]
    lines = page.locator("#timing-legend dt")
    sync_api.expect(lines).to_have_count(len(stages) - 1)
    assert [*lines.all_inner_texts(), "total"] == stages
    total = float(header.rpartition("dur=")[2])
    sync_api.expect(page.locator("#timing-total")).to_have_text(f"Answered in {total:.1f} ms")


def test_gone_original_is_said_not_shown_broken(
    page: Page, photos: Path, jpeg: Callable[[int], bytes]
) -> None:
    """A hit whose original was deleted says so; its embedding can still be searched with."""
    lost = photos / "09.jpg"
    data = jpeg(9)
    lost.unlink()
    try:
        pick(page, photos / "08.jpg")
        gone = page.locator(".hit.gone")
        sync_api.expect(gone).to_have_count(1)
        sync_api.expect(gone.locator(".name")).to_have_text("09.jpg")
        gone.locator("button").click()
        sync_api.expect(page.locator("#caption")).to_have_text("09.jpg")
        sync_api.expect(page.locator("#status")).to_contain_text("11 found")
        sync_api.expect(page.locator("#invitation")).to_be_visible()
    finally:
        lost.write_bytes(data)


def test_page_asks_for_the_key_and_uses_it(browser: Any, index_root: Path, photos: Path) -> None:
    """401 shows a field for the key; with it photos are found and thumbnails shown."""
    settings = Settings(index=index_root, port=0, api_key=[SecretStr("open sesame")])
    with running(settings) as guarded, opened(browser, guarded.url) as page:
        page.set_input_files("#picker", photos / "05.jpg")
        sync_api.expect(page.get_by_role("alert")).to_contain_text("A key is needed")
        sync_api.expect(page.get_by_label("Key")).to_be_focused()
        page.keyboard.type("open simsim")
        page.keyboard.press("Enter")
        sync_api.expect(page.get_by_role("alert")).to_contain_text("The key is not known")
        page.get_by_label("Key").fill("open sesame")
        page.get_by_role("button", name="Use it").click()
        sync_api.expect(page.locator("#status")).to_contain_text("12 found")
        sync_api.expect(page.locator("#error")).to_be_hidden()
        first = page.locator(".hit").first.locator("img")
        sync_api.expect(first).to_have_attribute("src", re.compile("^blob:"))
        first.evaluate("image => image.decode()")
        assert first.evaluate("image => image.naturalWidth") == 96
        sync_api.expect(page.locator(".hit.gone")).to_have_count(0)
        page.locator(".hit button").nth(1).click()
        sync_api.expect(page.locator("#status")).to_contain_text("11 found")
        sync_api.expect(page.locator("#preview")).to_have_attribute("src", re.compile("^blob:"))
        page.reload()  # the tab remembers it
        pick(page, photos / "06.jpg")
