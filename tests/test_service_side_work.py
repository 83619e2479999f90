"""Work that may hang: it is given up in time, bounded, and keeps no process alive."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from service_running import Service, running

from service.batching.batch_errors import DeadlineExceededError, QueueFullError
from service.batching.side_work import SideWork
from service.settings import Settings

pytest_plugins = ["service_fixtures"]


@pytest.fixture
def stuck() -> Iterator[Callable[[], None]]:
    """Work that hangs until the test is over."""
    over = threading.Event()

    def hang() -> None:
        over.wait(30)

    yield hang
    over.set()


def run_with(body: Callable[[SideWork], Awaitable[None]], *, max_waiting: int = 2) -> None:
    async def main() -> None:
        await body(SideWork(max_waiting=max_waiting, timeout_seconds=0.05))

    asyncio.run(main())


def test_result_and_error_of_the_work_come_back() -> None:
    """Work that returns or raises in time leaves nothing behind, its own TimeoutError included."""

    def fail() -> None:
        raise TimeoutError("of the file system")

    async def body(side_work: SideWork) -> None:
        assert await side_work.run(lambda: 42) == 42
        with pytest.raises(TimeoutError, match="of the file system"):
            await side_work.run(fail)
        assert side_work.num_waiting == 0

    run_with(body)


def test_work_that_hangs_is_given_up_and_takes_no_other_with_it(stuck: Callable[[], None]) -> None:
    """One hanging piece costs its own request only."""

    async def body(side_work: SideWork) -> None:
        asked = (side_work.run(stuck), side_work.run(lambda: None))
        late, fine = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(late, DeadlineExceededError)
        assert fine is None

    run_with(body)


def test_pieces_that_hang_keep_their_places(stuck: Callable[[], None]) -> None:
    """With all places taken by what hangs, later work is refused at once."""

    async def body(side_work: SideWork) -> None:
        asked = await asyncio.gather(
            *(side_work.run(stuck) for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in asked] == [
            DeadlineExceededError, DeadlineExceededError, QueueFullError,
        ]  # fmt: skip
        with pytest.raises(QueueFullError, match="2 requests"):
            await side_work.run(lambda: None)

    run_with(body)


def test_process_ends_although_a_piece_hangs() -> None:
    """A thread that never returns is not waited for."""
    code = """
import asyncio, threading
from service.batching.side_work import SideWork
try:
    asyncio.run(SideWork(max_waiting=1, timeout_seconds=0.05).run(threading.Event().wait))
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "DeadlineExceededError\n"


def test_thumbnail_of_a_stalled_file_is_a_504_and_others_are_served(
    index_root: Path, stuck: Callable[[], None]
) -> None:
    """A file that cannot be read to its end delays neither other thumbnails nor the end."""
    with running(Settings(index=index_root, port=0, request_timeout_ms=500)) as service:
        stall(service, 3, stuck)
        late = service.client.get("/images/3/thumbnail")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert service.client.get("/images/4/thumbnail").status_code == 200


def test_thumbnails_beyond_the_bound_are_refused(
    index_root: Path, stuck: Callable[[], None]
) -> None:
    """With every place taken a thumbnail is a 429 with a time to come back; searches go on."""
    with running(Settings(index=index_root, port=0, request_timeout_ms=500)) as service:
        stall(service, 3, stuck)
        service.server.runtime.side_work._max_waiting = 1
        assert service.client.get("/images/3/thumbnail").status_code == 504
        refused = service.client.get("/images/4/thumbnail")
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert refused.headers["Retry-After"] == "1"


def stall(service: Service, image_id: int, stuck: Callable[[], None]) -> None:
    """Let the index hang when it reads one photo."""
    searcher = service.searcher
    read_photo = searcher.read_photo

    def read_or_hang(asked_id: int) -> bytes | None:
        if asked_id == image_id:
            stuck()
        return read_photo(asked_id)

    searcher.read_photo = read_or_hang  # type: ignore[assignment,method-assign]
