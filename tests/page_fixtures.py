"""A real browser, and the page opened in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_opening import Page, opened
from service_running import Service

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    # Here, so that a test file can be skipped where it is not installed.
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Page]:
    """The page of the service that all tests share."""
    with opened(browser, service.url) as page:
        yield page
