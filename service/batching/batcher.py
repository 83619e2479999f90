"""Requests that arrive together are run as one batch; a lone request does not wait.

Everything but the batch itself runs on the event loop, so there are no locks. A request is
*admitted* before its body is read (that bounds the queue), *arriving* from the moment its body
is complete (that is what a batch may wait for), and *queued* once it is ready to run.

Where decoding and model share the cores they take turns: a decoder beside a forward pass holds
all threads of the model up, for each waits for the slowest at every layer. Photos are decoded
between two forward passes then, as many as the next batch has places for.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Generic

from service.batching.batch_errors import DeadlineExceededError, EngineDeadError
from service.batching.batch_item import Done, Item, P, R
from service.batching.batch_runs import BatchRuns, Result
from service.batching.lanes import Lanes
from service.batching.places import Places
from service.batching.turns import Turns

logger = logging.getLogger(__name__)

# After `close` a batch that hangs is not waited for any longer.
_CLOSE_SECONDS = 3.0


class Batcher(Generic[P, R]):
    """Collects payloads and runs `run_batch` on them, one batch at a time, in `executor`.

    `runs` says how batches are run, and what happens to one that fails; EngineDeadError ends the
    batcher. `places` says how many requests are on their way. Photos are decoded in a turn of
    `turns`; with `decode_between` there is none while a batch computes, which is until it ends
    or says `note_computed`.
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
        decode_between: bool = False,
        note_batch: Callable[[int, Result], None] = lambda _size, _result: None,
    ) -> None:
        self.runs = BatchRuns[P, R](
            run_batch, executor=executor, max_batch=max_batch, note_batch=note_batch
        )
        self.places = Places(
            max_queue,
            max_of_client=max_of_client,
            retry_after_seconds=self.runs.retry_after_seconds,
        )
        self.turns = Turns(self._may_decode if decode_between else lambda _num_begun: True)
        self._max_wait_seconds = max_wait_seconds
        self._free_at = 0.0
        self._queue = Lanes[Item[P, R]]()
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._closing = False
        self._num_arriving = 0

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
        """How many requests wait for a batch, or to be decoded for one."""
        return len(self._queue) + self.turns.num_waiting

    @property
    def num_arriving(self) -> int:
        """How many requests are being made ready to run."""
        return self._num_arriving - self.turns.num_waiting

    def note_computed(self) -> None:
        """Say, from the thread of a batch, that it computes no more: photos may be decoded."""
        assert self._dispatcher is not None
        self._dispatcher.get_loop().call_soon_threadsafe(self._let_decode)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Announce a request whose body is complete: a batch may wait for it."""
        self._num_arriving += 1
        try:
            yield
        finally:
            self._num_arriving -= 1
            self._changed.set()

    async def submit(
        self,
        payload: P,
        *,
        deadline: float,
        request_id: str = "",
        background: bool = False,
        note_start: Callable[[], None] = lambda: None,
    ) -> Done[R]:
        """Queue a payload and wait for its result.

        `deadline` is a time of the event loop's clock; `background` takes only places that are
        left in a batch; `note_start` is called when the payload is in a batch that begins. Raises
        DeadlineExceededError, EngineDeadError, or what `run_batch` raised for this payload alone.
        """
        if self._closing or not self.alive:
            raise EngineDeadError("the service no longer runs its model")
        future = asyncio.get_running_loop().create_future()
        item = Item[P, R](payload, request_id, future, deadline, note_start)
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
                await self.runs.run(batch)
                self._free_at = time.monotonic()
                self.turns.look()

    async def _until_worth_running(self) -> None:
        """Wait for an item, then for those arriving: at most max_wait from when it could run."""
        while not self._queue:
            if self._closing:
                return
            await self._next_change(None)
        run_at = max(self._queue.first().queued_at, self._free_at) + self._max_wait_seconds
        while self._num_arriving and 0 < len(self._queue) < self.runs.limit:
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

    def _pop(self) -> list[Item[P, R]]:
        """Take as many items as a batch may have, of those whose client still waits."""
        batch: list[Item[P, R]] = []
        now, limit = asyncio.get_running_loop().time(), self.runs.limit
        while self._queue and len(batch) < limit:
            item = self._queue.popleft()
            if not item.future.done() and now < item.deadline:
                item.note_start()
                batch.append(item)
        return batch

    def _let_decode(self) -> None:
        self.runs.note_computed()
        self.turns.look()

    def _may_decode(self, num_decoding: int) -> bool:
        """Whether another photo may be decoded: the cores are free, and the next batch not full."""
        return not self.runs.is_computing and len(self._queue) + num_decoding < self.runs.limit

    def _on_dispatcher_end(self, task: asyncio.Task[None]) -> None:
        """Answer whoever still waits: without the dispatcher nothing will be run."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("the batcher has stopped", exc_info=error)
        for item in self._queue:
            item.fail(EngineDeadError("the model has stopped"))
        self._queue.clear()
        self.turns.look()  # what is decoded now will be told the same
