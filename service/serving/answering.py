"""A request's way from what it brought to its place in a batch, within its deadline."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.types import Receive

from multigrain.augmented import Augment
from service.batching.batch_errors import DeadlineExceededError
from service.batching.batch_item import Done
from service.batching.queries import Answer, PhotoFacts, Query, Search
from service.errors import ClientGoneError
from service.receiving.upload import receive_body
from service.serving.runtime import Ready, Runtime

T = TypeVar("T")

# What a request waits for: `fetch` a photo named by its address, `change` the index's folder.
Stage = Literal["receive", "fetch", "decode", "queue", "infer", "change"]


class Answered(NamedTuple):
    """A batch's answer, and facts of the photo where one was sent.

    `decode_seconds` until it could be queued, and `turn_seconds` it waited to be decoded.
    """

    facts: PhotoFacts | None
    done: Done[Answer]
    decode_seconds: float
    turn_seconds: float = 0.0


class Answering:
    """One request: its parts are run on the decoding threads, its query in a batch.

    The time counts from the construction, when the body is complete. `request.state.stage` is
    what is waited for. Every method raises DeadlineExceededError.
    """

    def __init__(self, runtime: Runtime, ready: Ready, request: Request) -> None:
        self._runtime = runtime
        self._ready = ready
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._started_at = time.perf_counter()
        self._timeout_ms = runtime.settings.request_timeout_ms

    def set_timeout(self, timeout_ms: int | None) -> None:
        """Take the time the client gives; None leaves that of the settings."""
        self._timeout_ms = timeout_ms or self._runtime.settings.request_timeout_ms

    async def prepare(self, work: Callable[[], T]) -> T:
        """Run work that comes before the query on a decoding thread; a batch may wait for it."""
        self._enter("decode")
        with self._ready.batcher.arriving():
            async with self._deadline():
                return await self._runtime.in_decoder(work)

    async def wait_for(self, work: Coroutine[Any, Any, T], stage: Stage) -> T:
        """Await what is done elsewhere; no batch waits for it."""
        self._enter(stage)
        async with self._deadline():
            return await work

    async def with_photo(self, photo: bytes, search: Search | None) -> Answered:
        """Decode a photo, unless it is known, and ask the next batch; raises PhotoError."""
        engine, batcher = self._ready.engine, self._ready.batcher
        augment = search.augment if search else Augment.NONE
        asked_at = time.perf_counter()
        self._enter("decode")
        with batcher.arriving():
            async with self._deadline(), batcher.turns.turn():
                turn_seconds = time.perf_counter() - asked_at
                work = partial(engine.take_in, photo, self._runtime.limits, augment)
                source = await self._runtime.in_decoder(work)
        decode_seconds = time.perf_counter() - self._started_at - turn_seconds
        answered = await self.ask(Query(source, search), decode_seconds)
        return answered._replace(turn_seconds=turn_seconds)

    async def ask(
        self, query: Query, decode_seconds: float = 0.0, *, background: bool = False
    ) -> Answered:
        """Queue a query and wait for its batch; in the `background` behind every search."""
        self._enter("queue")
        done = await self._ready.batcher.submit(
            query,
            deadline=self._deadline_at,
            request_id=self._request.state.request_id,
            background=background,
            note_start=partial(self._enter, "infer"),
        )
        return Answered(query.source.facts, done, decode_seconds)

    def _enter(self, stage: Stage) -> None:
        self._request.state.stage = stage

    @property
    def _deadline_at(self) -> float:
        return self._began_at + self._timeout_ms / 1000

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._deadline_at):
                yield
        except TimeoutError:
            raise DeadlineExceededError("the photo was not there before the deadline") from None


class Received(NamedTuple, Generic[T]):
    """What a body was answered with, and the seconds it took to arrive."""

    answer: T
    receive_seconds: float


async def answer_body(
    runtime: Runtime,
    ready: Ready,
    request: Request,
    work: Callable[[bytes], Coroutine[Any, Any, T]],
) -> Received[T]:
    """Admit a request, read its body, and answer it while the client waits.

    Raises QueueFullError before a byte is read, ProblemError and ClientGoneError.
    """
    settings, started_at = runtime.settings, time.perf_counter()
    request.state.stage = "receive"
    with ready.batcher.places.take(request.state.client):
        body = await receive_body(
            request,
            max_bytes=settings.max_body_bytes,
            timeout_seconds=settings.body_timeout_s,
        )
        receive_seconds = time.perf_counter() - started_at
        answer = await until_client_leaves(work(body), request.receive)
    return Received(answer, receive_seconds)


async def until_client_leaves(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Run `work`, but cancel it when the client closes the connection: raises ClientGoneError.

    FastAPI does not do this. Once the body is read, `receive` returns only on a disconnect.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
