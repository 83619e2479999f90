"""The page opened in a browser, watched for script errors, given a photo."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Page = Any


@contextmanager
def opened(browser: Any, url: str, **context: Any) -> Iterator[Page]:
    """The page at `url`; a script error or a breach of its policy fails the test."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | context))
    page = context.new_page()
    page.set_default_timeout(10_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: faults.append(message.text) if "Policy" in message.text else None,
    )
    page.goto(url)
    yield page
    context.close()
    assert faults == []


def pick(page: Page, path: Path) -> None:
    page.set_input_files("#picker", path)
    page.wait_for_selector('[data-state="answered"]')
