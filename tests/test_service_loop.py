"""The event loop, on which everyone waits, decodes no photo for any kind of request."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx2
import pytest
from PIL import Image
from service_running import Service

pytest_plugins = ["service_fixtures"]

T = TypeVar("T")

# Of a busy machine the least is nearest to the truth.
NUM_TRIES = 3

KINDS: dict[str, Callable[[httpx2.Client, bytes], httpx2.Response]] = {
    "form": lambda client, photo: client.post("/search", files={"image": photo}),
    "raw": lambda client, photo: client.post("/search", content=photo),
    "base64": lambda client, photo: client.post(
        "/search", json={"image_base64": base64.b64encode(photo).decode()}
    ),
    "batch": lambda client, photo: client.post("/search/batch", files=[("image", photo)] * 2),
    "embed": lambda client, photo: client.post("/embed", content=photo),
}


@pytest.fixture(scope="module")
def costly() -> bytes:
    """A photo of few bytes that takes tens of milliseconds to decode."""
    written = io.BytesIO()
    Image.new("RGB", (3000, 2000), (9, 120, 30)).save(written, "PNG")
    return written.getvalue()


def on_loop(service: Service, work: Coroutine[Any, Any, T]) -> T:
    loop = service.server._loop
    assert loop is not None
    return asyncio.run_coroutine_threadsafe(work, loop).result(30)


def least_loop_seconds(service: Service, work: Callable[[], object]) -> float:
    """Processor seconds of the loop's own thread while some work is done.

    Which no other thread or program adds to, as it would to the time of a clock.
    """

    async def identity() -> int:
        return threading.get_ident()

    clock = time.pthread_getcpuclockid(on_loop(service, identity()))

    def seconds() -> float:
        before = time.clock_gettime(clock)
        work()
        return time.clock_gettime(clock) - before

    return min(seconds() for _ in range(NUM_TRIES))


@pytest.fixture(scope="module")
def decoding_seconds(service: Service, costly: bytes) -> float:
    """What the loop would be held up if it decoded the photo itself."""
    assert service.server.runtime.opened is not None
    embedder = service.server.runtime.opened.engine.embedder

    async def decode() -> None:
        embedder.read(costly)

    return least_loop_seconds(service, lambda: on_loop(service, decode()))


@pytest.mark.parametrize("kind", KINDS)
def test_request_takes_little_of_the_event_loop(
    service: Service, costly: bytes, decoding_seconds: float, kind: str
) -> None:
    """Whatever brings the photo, it is decoded, embedded and searched with beside the loop."""

    def ask() -> None:
        assert KINDS[kind](service.client, costly).status_code == 200

    assert least_loop_seconds(service, ask) < decoding_seconds / 2
