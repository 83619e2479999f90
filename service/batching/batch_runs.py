"""Batches run, and what has failed run once more in parts, so that only the culprit fails."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, Literal

from service.batching.batch_errors import BatchTooLargeError, EngineDeadError
from service.batching.batch_item import Item, P, R

Result = Literal["ok", "failed"]

logger = logging.getLogger(__name__)

# Weight of the newest batch in the moving average of batch seconds.
_AVERAGE_WEIGHT = 0.2
# How long batches stay smaller after the device's memory was short.
_SMALLER_SECONDS = 60.0


class BatchRuns(Generic[P, R]):
    """Runs batches in `executor`, one at a time, and answers their items.

    `run_batch` takes at most `max_batch` payloads and returns as many results in their order.
    When it raises, its payloads are run again one by one; after BatchTooLargeError in halves,
    and later batches are smaller for a while. `note_batch` hears of every batch that was run,
    its size and whether it succeeded. `is_computing` while a batch needs all cores, until it ends
    or `note_computed`.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[P]], Sequence[R]],
        *,
        executor: Executor,
        max_batch: int,
        note_batch: Callable[[int, Result], None],
    ) -> None:
        self.run_batch = run_batch
        self._executor = executor
        self._max_batch = max_batch
        self._note_batch = note_batch
        self._smaller = max_batch
        self._smaller_until = 0.0
        self.average_seconds = 0.0
        self.num_running = 0
        self.is_computing = False
        self.num_failed_in_row = 0
        self.running_since: float | None = None
        self.last_ok_at: float | None = None

    @property
    def limit(self) -> int:
        """How many requests the next batch may have."""
        return self._smaller if time.monotonic() < self._smaller_until else self._max_batch

    def retry_after_seconds(self, num_requests: int) -> int:
        """Whole seconds (at least 1) until that many requests will have been run."""
        num_batches = num_requests / self.limit + 1
        return max(1, math.ceil(num_batches * self.average_seconds))

    async def run(self, batch: list[Item[P, R]]) -> None:
        """Run a batch until each of its items has its answer; raises EngineDeadError."""
        started_at = self.running_since = time.monotonic()
        self.num_running = len(batch)
        logger.debug("batch of %d: %s", len(batch), [item.request_id for item in batch])
        try:
            await self._settle(batch)
        except Exception:
            for item in batch:
                item.fail(EngineDeadError("the model has stopped"))
            raise
        finally:
            self.num_running, self.running_since, self.is_computing = 0, None, False
        self._note_seconds(time.monotonic() - started_at)

    def note_computed(self) -> None:
        """Hear that what is left of the batch under way needs one core."""
        self.is_computing = False

    async def _settle(self, batch: list[Item[P, R]]) -> None:
        """Run a batch, and what has failed once more in parts; a lone item keeps its error."""
        error = await self._attempt(batch)
        if isinstance(error, BatchTooLargeError) and len(batch) == 1:
            error = await self._attempt(batch)  # what the device had cached is free now
        if error is None:
            return
        if isinstance(error, EngineDeadError):
            raise error
        if len(batch) == 1:
            self.num_failed_in_row += 1
            batch[0].fail(error)
            return
        for part in self._parts(batch, error):
            if waiting := [item for item in part if not item.future.done()]:
                await self._settle(waiting)

    def _parts(self, batch: list[Item[P, R]], error: Exception) -> list[list[Item[P, R]]]:
        if not isinstance(error, BatchTooLargeError):
            return [[item] for item in batch]
        half = (len(batch) + 1) // 2
        self._smaller, self._smaller_until = half, time.monotonic() + _SMALLER_SECONDS
        return [batch[:half], batch[half:]]

    async def _attempt(self, batch: list[Item[P, R]]) -> Exception | None:
        """Run a batch once and answer its items; gives the error of one that failed."""
        started_at, self.is_computing = time.monotonic(), True
        payloads = [item.payload for item in batch]
        work = asyncio.get_running_loop().run_in_executor(self._executor, self.run_batch, payloads)
        try:
            results = await work
            answers = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever a batch raises belongs to its items
            logger.warning("a batch of %d failed: %r", len(batch), error)
            self._note_batch(len(batch), "failed")
            return error
        self._note_batch(len(batch), "ok")
        self.num_failed_in_row, self.last_ok_at = 0, time.monotonic()
        for item, result in answers:
            item.answer(result, run_at=started_at)
        return None

    def _note_seconds(self, seconds: float) -> None:
        if not self.average_seconds:
            self.average_seconds = seconds
        self.average_seconds += _AVERAGE_WEIGHT * (seconds - self.average_seconds)
