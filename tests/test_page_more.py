"""More hits than a page shows at first, in a real browser: the next ones come below."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_opening import Page, opened, pick
from service_running import Service, running

from index.builder import build_index
from multigrain.embedder import Embedder
from service.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytest_plugins = ["service_fixtures", "page_fixtures"]

NUM_PHOTOS = 54
NUM_HITS = 24


@pytest.fixture(scope="module")
def many(
    tmp_path_factory: pytest.TempPathFactory, jpeg: Callable[[int], bytes], tiny_checkpoint: Path
) -> Iterator[Service]:
    """A service of 54 photos, number 0 red, the last one with a name of 200 letters."""
    folder = tmp_path_factory.mktemp("many")
    photos = folder / "photos"
    photos.mkdir()
    for seed in range(NUM_PHOTOS):
        name = f"{seed:02}" if seed < NUM_PHOTOS - 1 else "n" * 200
        (photos / f"{name}.jpg").write_bytes(jpeg(seed))
    build_index([photos], tiny_checkpoint, folder / "index", Embedder.open(tiny_checkpoint))
    with running(Settings(index=folder / "index", port=0)) as service:
        yield service


@pytest.fixture
def page(browser: Any, many: Service) -> Iterator[Page]:
    """The page of that service."""
    with opened(browser, many.url) as page:
        yield page


def names(page: Page) -> list[str]:
    return [str(name) for name in page.locator(".hit .name").all_inner_texts()]


def show_more(page: Page, count: int) -> None:
    page.get_by_role("button", name="Show more").click()
    sync_api.expect(page.locator(".hit")).to_have_count(count)


def test_page_asks_for_no_more_hits_than_the_service_allows(
    browser: Any, index_root: Path, photos: Path
) -> None:
    """With --max-limit 5 the first five are shown, and the button brings the next ones."""
    settings = Settings(index=index_root, port=0, max_limit=5)
    with running(settings) as service, opened(browser, service.url) as page:
        pick(page, photos / "05.jpg")
        sync_api.expect(page.locator(".hit")).to_have_count(5)
        show_more(page, 10)


def test_next_hits_come_below_until_there_are_no_more(
    page: Page, many: Service, photos: Path
) -> None:
    """Each press brings the next of one ranking; the last says so, and the button goes."""
    pick(page, photos / "05.jpg")
    status = page.get_by_role("status")
    sync_api.expect(status).to_have_text("24 shown, nearest first")
    show_more(page, 2 * NUM_HITS)
    sync_api.expect(status).to_have_text("48 shown, nearest first")
    show_more(page, NUM_PHOTOS)
    sync_api.expect(status).to_have_text("54 found, nearest first")
    sync_api.expect(page.get_by_text("That is all")).to_be_visible()
    sync_api.expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    answer = many.search((photos / "05.jpg").read_bytes(), limit=NUM_PHOTOS).json()
    assert names(page) == [Path(hit["uri"]).name for hit in answer["results"]]
    ranks = page.locator(".hit .rank").all_inner_texts()
    assert ranks == [f"#{rank}" for rank in range(1, NUM_PHOTOS + 1)]


def test_photo_is_sent_once(page: Page, photos: Path) -> None:
    """Further hits are asked for by the embedding, not by the photo again."""
    pick(page, photos / "05.jpg")
    with page.expect_request("**/search?*") as sent:
        show_more(page, 2 * NUM_HITS)
    assert "offset=24" in sent.value.url
    assert list(json.loads(sent.value.post_data)) == ["embedding"]


def test_keyboard_goes_on_with_the_first_new_hit(page: Page, photos: Path) -> None:
    """Enter on the button, and the focus is where the new hits begin; a hit can be searched from.

    Its neighbours have a page of their own, without it.
    """
    pick(page, photos / "05.jpg")
    page.get_by_role("button", name="Show more").focus()
    page.keyboard.press("Enter")
    first_new = page.locator(".hit button").nth(NUM_HITS)
    sync_api.expect(first_new).to_be_focused()
    name = first_new.locator(".name").inner_text()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#caption")).to_have_text(name)
    sync_api.expect(page.get_by_role("status")).to_have_text("24 shown, nearest first")
    show_more(page, 2 * NUM_HITS)
    show_more(page, NUM_PHOTOS - 1)
    assert name not in names(page)
    assert len(set(names(page))) == NUM_PHOTOS - 1


def test_filter_of_further_hits_is_that_of_the_first(page: Page, photos: Path) -> None:
    """What is typed and not applied changes nothing below."""
    pick(page, photos / "05.jpg")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Value").fill("no such label")
    show_more(page, 2 * NUM_HITS)


def test_failure_keeps_what_was_found_and_may_be_tried_again(page: Page, photos: Path) -> None:
    """The service's words stand beside the button, which works once the service does."""
    pick(page, photos / "05.jpg")
    problem = {"title": "Too busy", "detail": "come back", "status": 429, "code": "queue_full"}
    refuse = {
        "status": 429,
        "headers": {"Retry-After": "3", "Content-Type": "application/problem+json"},
        "body": json.dumps(problem),
    }
    page.route("**/search?*", lambda route: route.fulfill(**refuse))
    page.get_by_role("button", name="Show more").click()
    sync_api.expect(page.get_by_role("alert")).to_have_text("Too busy: come back (in 3 s)")
    sync_api.expect(page.locator(".hit")).to_have_count(NUM_HITS)
    page.unroute("**/search?*")
    show_more(page, 2 * NUM_HITS)
    sync_api.expect(page.get_by_role("alert")).to_have_count(0)


def test_another_generation_is_searched_anew(page: Page, photos: Path) -> None:
    """Two rankings are not mixed: the list begins again with the nearest."""
    pick(page, photos / "05.jpg")

    def newer(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"generation": "000002"})

    page.route("**/search?*offset=24*", newer)
    with page.expect_response("**/search?*offset=0*"):
        page.get_by_role("button", name="Show more").click()
    sync_api.expect(page.locator("#app")).to_have_attribute("aria-busy", "false")
    sync_api.expect(page.locator(".hit")).to_have_count(NUM_HITS)
    page.unroute("**/search?*offset=24*")
    show_more(page, 2 * NUM_HITS)


def test_new_photo_leaves_nothing_of_the_pages_before(page: Page, photos: Path) -> None:
    """A photo picked while the next hits are on their way gets its own ones only."""
    pick(page, photos / "05.jpg")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/search?*offset=24*", hold)
    page.get_by_role("button", name="Show more").click()
    sync_api.expect(page.get_by_role("button", name="Searching")).to_be_visible()
    page.get_by_role("button", name="Searching").dispatch_event("click")  # does nothing
    page.set_input_files("#picker", photos / "06.jpg")
    sync_api.expect(page.locator("#caption")).to_contain_text("06.jpg · 96")
    (late,) = held
    late.continue_()
    page.wait_for_load_state("networkidle")
    sync_api.expect(page.locator(".hit")).to_have_count(NUM_HITS)
    sync_api.expect(page.locator(".hit .name").first).to_have_text("06.jpg")


def test_many_hits_and_a_long_name_fit_a_phone(page: Page, photos: Path) -> None:
    """All hits shown at 390 px: nothing is scrolled sideways, no name takes a third line."""
    page.set_viewport_size({"width": 390, "height": 844})
    pick(page, photos / "05.jpg")
    show_more(page, 2 * NUM_HITS)
    show_more(page, NUM_PHOTOS)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    heights = (
        "its => its.map((it) => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight))"
    )
    assert max(page.locator(".hit .name").evaluate_all(heights)) < 2.2
