"""Requests that arrive together are run as one batch; a lone request does not wait.

Everything but the batch itself runs on the event loop, so there are no locks. A request is
*admitted* before its body is read (that bounds the queue), *arriving* from the moment its body
is complete (that is what a batch may wait for), and *queued* once it is ready to run.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Generic, Literal, NamedTuple, TypeVar

from multigrain.errors import MultiGrainError
from service.lanes import Lanes

P = TypeVar("P")  # what a request brings
R = TypeVar("R")  # what it gets
Result = Literal["ok", "failed"]

logger = logging.getLogger(__name__)

# Weight of the newest batch in the moving average of batch seconds.
_AVERAGE_WEIGHT = 0.2
# How long batches stay smaller after the device's memory was short.
_SMALLER_SECONDS = 60.0
# After `close` a batch that hangs is not waited for any longer.
_CLOSE_SECONDS = 3.0


class QueueFullError(MultiGrainError):
    """As many requests as are allowed are on their way; come back later."""

    def __init__(self, max_queue: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"{max_queue} requests are already waiting: try again in {retry_after_seconds} s"
        )
        self.retry_after_seconds = retry_after_seconds


class ClientLimitError(QueueFullError):
    """One client has as many requests on their way as one client may have."""


class BatchTooLargeError(MultiGrainError):
    """The device has no memory for a batch of this size."""


class DeadlineExceededError(MultiGrainError):
    """The answer did not come before the request's deadline."""


class EngineDeadError(MultiGrainError):
    """Batches are no longer run: the service has to be restarted."""


class Done(NamedTuple, Generic[R]):
    """A result, and the seconds its request waited for a batch."""

    result: R
    queue_seconds: float


class _Item(Generic[P, R]):
    """One queued request."""

    def __init__(
        self, payload: P, request_id: str, future: asyncio.Future[Done[R]], deadline: float
    ) -> None:
        self.payload = payload
        self.request_id = request_id
        self.future = future
        self.deadline = deadline
        self.queued_at = time.monotonic()

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless it was answered or given up."""
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[P, R]):
    """Collects payloads and runs `run_batch` on them, one batch at a time, in `executor`.

    `run_batch` takes at most `max_batch` payloads and returns as many results in their order.
    When it raises, its payloads are run again one by one, so that only the culprit fails; after
    BatchTooLargeError in halves, and later batches are smaller for a while. EngineDeadError ends
    the batcher.

    Of `max_queue` requests on their way at most `max_of_client` may be one client's. `note_batch`
    hears of every batch that was run, its size and whether it succeeded.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[P]], Sequence[R]],
        *,
        executor: Executor,
        max_batch: int,
        max_wait_seconds: float,
        max_queue: int,
        max_of_client: int | None = None,
        note_batch: Callable[[int, Result], None] = lambda _size, _result: None,
    ) -> None:
        self._run_batch = run_batch
        self._executor = executor
        self._max_batch = max_batch
        self._max_wait_seconds = max_wait_seconds
        self._max_queue = max_queue
        self._max_of_client = max_queue if max_of_client is None else max_of_client
        self._note_batch = note_batch
        self._of_client = Counter[str]()
        self._smaller = max_batch
        self._smaller_until = 0.0
        self._queue = Lanes[_Item[P, R]]()
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._closing = False
        self._batch_seconds = 0.0
        self.num_admitted = 0
        self.num_arriving = 0
        self.num_running = 0
        self.num_failed_in_row = 0
        self.running_since: float | None = None
        self.last_ok_at: float | None = None

    def start(self) -> None:
        """Begin to run batches; needs a running event loop."""
        self._dispatcher = asyncio.create_task(self._dispatch(), name="batcher")
        self._dispatcher.add_done_callback(self._on_dispatcher_end)

    @property
    def alive(self) -> bool:
        """Whether queued requests will be run."""
        return self._dispatcher is not None and not self._dispatcher.done()

    @property
    def num_queued(self) -> int:
        """How many requests are ready to run and wait for a batch."""
        return len(self._queue)

    @property
    def limit(self) -> int:
        """How many requests the next batch may have."""
        return self._smaller if time.monotonic() < self._smaller_until else self._max_batch

    def check_room(self, client: str | None = None) -> None:
        """Raise QueueFullError when no request can be admitted, or none of this client."""
        if self.num_admitted >= self._max_queue:
            raise QueueFullError(self._max_queue, self.retry_after_seconds())
        if client is not None and self._of_client[client] >= self._max_of_client:
            raise ClientLimitError(self._max_of_client, self.retry_after_seconds())

    @contextmanager
    def admit(self, client: str | None = None) -> Iterator[None]:
        """Hold a place from before the body is read to the answer; raises QueueFullError.

        `client` is whose place it is; None is counted for nobody.
        """
        self.check_room(client)
        self.num_admitted += 1
        if client is not None:
            self._of_client[client] += 1
        try:
            yield
        finally:
            self.num_admitted -= 1
            if client is not None:
                self._of_client[client] -= 1

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Announce a request whose body is complete: a batch may wait for it."""
        self.num_arriving += 1
        try:
            yield
        finally:
            self.num_arriving -= 1
            self._changed.set()

    def retry_after_seconds(self) -> int:
        """Whole seconds (at least 1) until the requests queued now will have been run."""
        num_batches = self.num_admitted / self.limit + 1
        return max(1, math.ceil(num_batches * self._batch_seconds))

    async def submit(
        self, payload: P, *, deadline: float, request_id: str = "", background: bool = False
    ) -> Done[R]:
        """Queue a payload and wait for its result.

        `deadline` is a time of the event loop's clock; `background` takes only places that are
        left in a batch. Raises DeadlineExceededError,
        EngineDeadError, or what `run_batch` raised for this payload alone.
        """
        if self._closing or not self.alive:
            raise EngineDeadError("the service no longer runs its model")
        future = asyncio.get_running_loop().create_future()
        item = _Item[P, R](payload, request_id, future, deadline)
        self._queue.append(item, background=background)
        self._changed.set()
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await item.future
        except TimeoutError:
            if not limit.expired():
                raise  # the batch's own
            raise DeadlineExceededError("the answer was not ready before the deadline") from None
        finally:
            # A hung batch must not let the items of clients that gave up pile up here.
            self._queue.discard(item)

    async def close(self) -> None:
        """Run what is queued, then stop; later submissions are refused.

        A batch that hangs is given up after some seconds.
        """
        self._closing = True
        self._changed.set()
        if self._dispatcher is not None:
            await asyncio.wait([self._dispatcher], timeout=_CLOSE_SECONDS)

    async def _dispatch(self) -> None:
        while self._queue or not self._closing:
            await self._until_worth_running()
            if batch := self._pop():
                await self._run(batch)

    async def _until_worth_running(self) -> None:
        """Wait for an item, then for those arriving: at most max_wait after the first item."""
        while not self._queue:
            if self._closing:
                return
            await self._next_change(None)
        run_at = self._queue.first().queued_at + self._max_wait_seconds
        while self.num_arriving and 0 < len(self._queue) < self.limit:
            remaining_seconds = run_at - time.monotonic()
            if remaining_seconds <= 0:
                return
            await self._next_change(remaining_seconds)

    async def _next_change(self, timeout_seconds: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return  # waited long enough: the caller looks at the clock

    def _pop(self) -> list[_Item[P, R]]:
        """Take as many items as a batch may have, of those whose client still waits."""
        batch: list[_Item[P, R]] = []
        now, limit = asyncio.get_running_loop().time(), self.limit
        while self._queue and len(batch) < limit:
            item = self._queue.popleft()
            if not item.future.done() and now < item.deadline:
                batch.append(item)
        return batch

    async def _run(self, batch: list[_Item[P, R]]) -> None:
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
            self.num_running, self.running_since = 0, None
        self._note_seconds(time.monotonic() - started_at)

    async def _settle(self, batch: list[_Item[P, R]]) -> None:
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

    def _parts(self, batch: list[_Item[P, R]], error: Exception) -> list[list[_Item[P, R]]]:
        if not isinstance(error, BatchTooLargeError):
            return [[item] for item in batch]
        half = (len(batch) + 1) // 2
        self._smaller, self._smaller_until = half, time.monotonic() + _SMALLER_SECONDS
        return [batch[:half], batch[half:]]

    async def _attempt(self, batch: list[_Item[P, R]]) -> Exception | None:
        """Run a batch once and answer its items; gives the error of one that failed."""
        started_at = time.monotonic()
        payloads = [item.payload for item in batch]
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._run_batch, payloads)
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
            if not item.future.done():
                waited_seconds = started_at - item.queued_at
                item.future.set_result(Done(result, waited_seconds))
        return None

    def _note_seconds(self, seconds: float) -> None:
        if not self._batch_seconds:
            self._batch_seconds = seconds
        self._batch_seconds += _AVERAGE_WEIGHT * (seconds - self._batch_seconds)

    def _on_dispatcher_end(self, task: asyncio.Task[None]) -> None:
        """Answer whoever still waits: without the dispatcher nothing will be run."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("the batcher has stopped", exc_info=error)
        for item in self._queue:
            item.fail(EngineDeadError("the model has stopped"))
        self._queue.clear()
