"""What the routes share, and where in its life the service is."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple, ParamSpec, TypeVar

from index.replica.source import IndexSource
from multigrain.cpus import num_cpus
from multigrain.engine import resolve_device
from multigrain.photo_limits import PhotoLimits
from service.batching.batch_errors import EngineDeadError
from service.batching.batcher import Batcher
from service.batching.device_sizes import device_sizes
from service.batching.queries import Answer, Query
from service.batching.side_work import SideWork
from service.batching.watchdog import Watchdog
from service.errors import ProblemError
from service.receiving.fetcher import Fetcher
from service.release import release
from service.serving.changes import Changes
from service.serving.engine import Engine
from service.serving.opening import make_batcher, open_engine, poll_seconds, searcher_options
from service.serving.reload import Reloader, ReloadInProgressError
from service.settings import Settings
from service.watching.metrics import Metrics

# A page of 100 hits, and more: thumbnails take milliseconds each.
MAX_WAITING_THUMBNAILS = 128
# Each Prometheus asks every few seconds and waits about as long.
MAX_WAITING_SCRAPES = 8
SCRAPE_SECONDS = 10.0

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Status = Literal["ok", "degraded", "starting", "draining", "dead"]


class Ready(NamedTuple):
    """The opened parts of a service that answers searches."""

    engine: Engine
    batcher: Batcher[Query, Answer]
    reloader: Reloader
    watchdog: Watchdog
    changes: Changes


class Runtime:
    """Engine, batcher and threads of one service; all methods belong to the event loop.

    Threads keep work apart: one owns the model and the index, `decode_threads` turn photos to
    pixels, and thumbnails are made one by one so that a page full of them delays no search.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises DeviceError for a device that is not there."""
        self.settings = settings
        self.limits = PhotoLimits(
            max_bytes=settings.max_body_bytes,
            max_pixels=settings.max_pixels,
            max_side=settings.max_side,
            min_side=settings.min_side,
            formats=tuple(settings.formats),
        )
        device = resolve_device(settings.device)
        self._sizes = device_sizes(settings, device=device, num_cpus=num_cpus())
        self.engine_thread = ThreadPoolExecutor(1, "engine")
        self.decoders = ThreadPoolExecutor(self._sizes.decode_threads, "decode")
        self.side_work = SideWork(
            max_waiting=MAX_WAITING_THUMBNAILS, timeout_seconds=settings.request_timeout_ms / 1000
        )
        self.metrics = Metrics()
        self.scrapes = SideWork(max_waiting=MAX_WAITING_SCRAPES, timeout_seconds=SCRAPE_SECONDS)
        self.fetcher = Fetcher(max_bytes=settings.max_body_bytes)
        self.release = release()  # once: it reads files, and probes ask for it
        self.started_at = time.monotonic()
        self.draining = False
        self.opened: Ready | None = None

    async def open(self) -> None:
        """Load, verify and warm everything, then begin to answer; raises MultiGrainError."""
        settings = self.settings
        source = IndexSource(settings.index, cache_dir=settings.cache_dir)
        opening = partial(open_engine, settings, source, max_batch=self._sizes.max_batch)
        engine = await asyncio.get_running_loop().run_in_executor(self.engine_thread, opening)
        batcher = make_batcher(
            settings,
            engine,
            executor=self.engine_thread,
            max_batch=self._sizes.max_batch,
            note_batch=self.metrics.note_batch,
        )
        batcher.start()
        reloader = Reloader(
            source,
            engine,
            engine_thread=self.engine_thread,
            options=searcher_options(settings),
            note_end=self.metrics.note_reload,
        )
        if every_seconds := poll_seconds(settings, source):
            reloader.watch(every_seconds)
        watchdog = Watchdog(batcher, engine.test, executor=self.engine_thread)
        changes = Changes(source.root, engine)
        changes.watch(settings.adds_poll_s)
        self.opened = Ready(engine, batcher, reloader, watchdog, changes)

    async def watch(self) -> None:
        """Wait, until the task is cancelled, for what only a restart cures: EngineDeadError."""
        assert self.opened is not None
        await self.opened.watchdog.run()

    def reload(self) -> None:
        """Take up the generation CURRENT names, as far as one is served and none is under way."""
        if self.opened is None or self.draining:
            logger.warning("no reload: the service is %s", self.status)
            return
        try:
            self.opened.reloader.begin()
        except ReloadInProgressError as error:
            logger.warning("no reload: %s", error)

    async def in_decoder(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Run `work` on a decoding thread; given up before it starts, it is not run at all."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.decoders, partial(work, *given, **named))

    async def close(self) -> None:
        """Finish the queue, then let go of the index and the threads."""
        if self.opened is not None:
            self.opened.reloader.close()
            await self.opened.batcher.close()
            self.opened.changes.close()
            self.opened.engine.close()
        for pool in (self.engine_thread, self.decoders):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def status(self) -> Status:
        """Whether searches are answered, and if not, why."""
        if self.opened is not None and not (
            self.inference_alive and self.opened.watchdog.is_content
        ):
            return "dead"
        if self.draining:
            return "draining"
        if self.opened is None:
            return "starting"
        return "ok" if self.opened.reloader.last_error is None else "degraded"

    @property
    def answers(self) -> bool:
        """Whether searches should be sent here."""
        return self.status in {"ok", "degraded"}

    @property
    def inference_alive(self) -> bool:
        """False once batches are no longer run, or one of them, or the model's test, hangs."""
        if self.opened is None:
            return True
        batcher, watchdog = self.opened.batcher, self.opened.watchdog
        under_way = [
            at for at in (batcher.runs.running_since, watchdog.testing_since) if at is not None
        ]
        since = min(under_way, default=None)
        stuck = since is not None and time.monotonic() - since > self.settings.stuck_after_s
        return batcher.alive and not stuck

    def ready_to_infer(self) -> Ready:
        """The opened parts, for who would wait for a batch; raises EngineDeadError, too.

        Asked before a body is read: a client need not send what nobody will run.
        """
        ready = self.ready()
        if not self.inference_alive:
            raise EngineDeadError("the model has stopped or hangs: the service has to be restarted")
        return ready

    def ready(self) -> Ready:
        """Return the opened parts, or raise the problem that tells why there are none."""
        if self.opened is None:
            raise ProblemError("not_ready", "the model is still being loaded")
        if self.draining:
            raise ProblemError("draining", "the service is shutting down")
        return self.opened
