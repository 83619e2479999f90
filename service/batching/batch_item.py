"""One request in the queue, and what it is answered with."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

P = TypeVar("P")  # what a request brings
R = TypeVar("R")  # what it gets


class Done(NamedTuple, Generic[R]):
    """A result, and the seconds its request waited for a batch."""

    result: R
    queue_seconds: float


class Item(Generic[P, R]):
    """One queued request; `deadline` is a time of the event loop's clock.

    `note_start` is called when it is in a batch that begins.
    """

    def __init__(
        self,
        payload: P,
        request_id: str,
        future: asyncio.Future[Done[R]],
        deadline: float,
        note_start: Callable[[], None],
    ) -> None:
        self.payload = payload
        self.request_id = request_id
        self.future = future
        self.deadline = deadline
        self.note_start = note_start
        self.queued_at = time.monotonic()

    def answer(self, result: R, *, run_at: float) -> None:
        """Answer with the result of a batch that began at `run_at`, unless it was given up."""
        if not self.future.done():
            self.future.set_result(Done(result, run_at - self.queued_at))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless it was answered or given up."""
        if not self.future.done():
            self.future.set_exception(error)
