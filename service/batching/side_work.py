"""Work beside the searches that may never return, such as reading a file from a dead mount."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

from service.batching.batch_errors import DeadlineExceededError, QueueFullError

T = TypeVar("T")

# A piece of such work takes milliseconds unless it hangs, and then nobody knows.
RETRY_AFTER_SECONDS = 1
# The part of its time in which a piece keeps others from beginning.
TURN_SHARE = 0.2


class SideWork:
    """Does one piece of work at a time, each within `timeout_seconds` of being asked for.

    A piece that takes long loses its turn, so that one which hangs takes no other with it, but
    it keeps its place until it returns: at most `max_waiting` requests and threads pile up. The
    threads are daemons, each for one piece: a pool's would be waited for when the process ends.
    """

    def __init__(self, *, max_waiting: int, timeout_seconds: float) -> None:
        self._max_waiting = max_waiting
        self._timeout_seconds = timeout_seconds
        self._turn = asyncio.Lock()
        self._places: set[Future[Any]] = set()

    @property
    def num_waiting(self) -> int:
        """How many pieces wait, are being worked on, or hang."""
        return len(self._places)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; raises what it raises.

        Raises QueueFullError and DeadlineExceededError.
        """
        if len(self._places) >= self._max_waiting:
            raise QueueFullError(self._max_waiting, RETRY_AFTER_SECONDS)
        place = Future[T]()
        self._places.add(place)
        place.add_done_callback(self._places.discard)
        try:
            async with asyncio.timeout(self._timeout_seconds) as limit:
                async with self._turn:
                    answer = self._begin(place, work)
                    await asyncio.wait({answer}, timeout=self._timeout_seconds * TURN_SHARE)
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise  # the work's own
            raise DeadlineExceededError("the answer was not ready before the deadline") from None
        finally:
            place.cancel()  # does nothing to one that runs

    @staticmethod
    def _begin(place: Future[T], work: Callable[[], T]) -> asyncio.Future[T]:
        place.set_running_or_notify_cancel()
        Thread(target=_fulfil, args=(place, work), name="side work", daemon=True).start()
        answer = asyncio.wrap_future(place)
        # One that was given up may still fail: asyncio would log that nobody asked why.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer


def _fulfil(place: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whatever it raises belongs to who waits
        place.set_exception(error)
    else:
        place.set_result(result)
