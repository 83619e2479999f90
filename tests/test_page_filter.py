"""The page's filter in a real browser: rows of conditions narrow what is found."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_opening import Page, opened, pick
from service_running import Service, running

from index.builder import build_index
from index.searching.where import COLUMNS
from multigrain.embedder import Embedder
from service.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytest_plugins = ["service_fixtures", "page_fixtures"]


@pytest.fixture(scope="module")
def listed(photos: Path, tiny_checkpoint: Path, tmp_path_factory: Any) -> Iterator[Service]:
    """A service of the same photos as a list names them, with a label and an attribute each."""
    folder = tmp_path_factory.mktemp("listed")
    rows = [
        {"path": str(path), "label": "even" if number % 2 == 0 else "odd", "price": number}
        for number, path in enumerate(sorted(photos.iterdir()))
    ]
    (folder / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embedder = Embedder.open(tiny_checkpoint)
    build_index([folder / "photos.jsonl"], tiny_checkpoint, folder / "index", embedder)
    with running(Settings(index=folder / "index", port=0)) as service:
        yield service


def names(page: Page) -> list[str]:
    return [str(name) for name in page.locator(".hit:not(.waiting) .name").all_inner_texts()]


def fill_condition(page: Page, row: int, field: str, comparison: str, value: str) -> None:
    condition = page.locator(".condition").nth(row)
    condition.get_by_label("Field").select_option(label=field)
    condition.get_by_label("Comparison").select_option(label=comparison)
    condition.get_by_label("Value").fill(value)


def test_filter_narrows_the_hits(browser: Any, listed: Service, photos: Path) -> None:
    """Rows of field, comparison and value are the search's filter, also of the next photo."""
    with opened(browser, listed.url) as page:
        page.get_by_text("Filter").click()
        fill_condition(page, 0, "label", "is", "even")
        page.get_by_role("button", name="Apply").click()
        pick(page, photos / "04.jpg")
        assert sorted(names(page)) == ["00.jpg", "02.jpg", "04.jpg", "06.jpg", "08.jpg", "10.jpg"]
        page.get_by_role("button", name="Add a condition").click()
        fill_condition(page, 1, "price", "at most", "4")
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#status")).to_contain_text("3 found")
        assert sorted(names(page)) == ["00.jpg", "02.jpg", "04.jpg"]
        sync_api.expect(page.locator("#filter-count")).to_have_text(" (2)")
        fill_condition(page, 0, "label", "is not", "even")
        fill_condition(page, 1, "price", "is one of", "1, 3, 4")
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#status")).to_contain_text("2 found")
        assert sorted(names(page)) == ["01.jpg", "03.jpg"]
        folder = page.locator(".hit .folder").first
        sync_api.expect(folder).to_have_text(photos.name)  # names of files alone repeat
        sync_api.expect(page.locator(".hit button").first).to_have_accessible_name(
            re.compile(rf"\.jpg in {photos.name}\.")
        )
        page.get_by_label("Remove this condition").first.click()
        page.get_by_role("button", name="Clear").click()
        sync_api.expect(page.locator(".hit:not(.waiting)")).to_have_count(12)


def test_filter_that_nothing_meets_or_that_is_wrong_is_said(
    browser: Any, listed: Service, photos: Path
) -> None:
    """No hits are told apart from an empty collection; a refusal comes in the service's words."""
    with opened(browser, listed.url) as page:
        pick(page, photos / "04.jpg")
        page.get_by_text("Filter").click()
        fill_condition(page, 0, "label", "is", "neither")
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#status")).to_have_text("No photo meets the filter")
        fill_condition(page, 0, "width", "at least", "wide")
        page.keyboard.press("Enter")
        sync_api.expect(page.get_by_role("alert")).to_contain_text("width is a number")


def test_fields_of_the_filter_are_those_of_the_index(page: Page) -> None:
    """What the page offers before it knows the collection is what any index can be asked."""
    page.get_by_text("Filter").click()
    fields = page.get_by_label("Field").locator("option")
    sync_api.expect(fields).to_have_count(len(COLUMNS))  # its first row comes when it has opened
    assert [each.get_attribute("value") for each in fields.all()] == list(COLUMNS)
