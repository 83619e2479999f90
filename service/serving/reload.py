"""Taking up the generation that CURRENT names, once it has shown that it is whole."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread

from index.current import Pointer, read_current
from index.layout import Layout
from index.replica.source import IndexSource
from index.searcher import Searcher, SearcherOptions
from multigrain.embedder import Embedder, Embeddings
from multigrain.errors import MultiGrainError
from multigrain.prepared import Prepared
from multigrain.transforms import Pixels
from service.plain_json import plain_text
from service.serving.engine import Engine
from service.serving.reload_job import ReloadJob

logger = logging.getLogger(__name__)

# Whoever started a job asks for it soon after; older ones are in the log.
_NUM_JOBS_KEPT = 16


class ReloadInProgressError(MultiGrainError):
    """Only one reload runs at a time."""


class Reloader:
    """Opens, verifies and takes up the live generation, in a thread of its own.

    A generation is taken up when its files agree with every checksum, its fingerprint is the
    model's, and its canaries find what they found when it was built; until then, and for good
    when one of these fails, the one before answers. Nothing is written to the folder. All
    methods may be called from any thread; `options` say how a generation is opened; `note_end`
    hears of each reload that has ended.
    """

    def __init__(
        self,
        source: IndexSource,
        engine: Engine,
        *,
        engine_thread: Executor,
        options: SearcherOptions,
        note_end: Callable[[ReloadJob], None],
    ) -> None:
        self._source, self._layout = source, Layout(source.root.absolute())
        self._engine = engine
        self._embedder = _OnEngineThread(engine.embedder, engine_thread)
        self._open = partial(Searcher.open_current, **options)
        self._note_end = note_end
        self._lock = Lock()
        self._jobs = dict[str, ReloadJob]()
        self._num_begun = 0
        self._tried: Pointer | None = None
        self._over = Event()
        self.last_error: str | None = None

    def begin(self) -> ReloadJob:
        """Begin a reload; raises ReloadInProgressError while one runs."""
        with self._lock:
            for job in self._jobs.values():
                if job.status == "running":
                    raise ReloadInProgressError(f"reload {job.id} is under way")
            self._num_begun += 1
            job = ReloadJob(str(self._num_begun), started_at=time.monotonic())
            self._jobs[job.id] = job
            if len(self._jobs) > _NUM_JOBS_KEPT:
                del self._jobs[next(iter(self._jobs))]
        # A daemon: a file on a dead mount must not keep the process from ending.
        Thread(target=self._run, args=(job,), name="reload", daemon=True).start()
        return job

    def job(self, job_id: str) -> ReloadJob | None:
        """One of the last jobs."""
        with self._lock:
            return self._jobs.get(job_id)

    def watch(self, every_seconds: float) -> None:
        """From now on reload whenever CURRENT names another generation than the one served."""
        Thread(target=self._watch, args=(every_seconds,), name="watch", daemon=True).start()

    def close(self) -> None:
        """Take up nothing more."""
        self._over.set()

    def _watch(self, every_seconds: float) -> None:
        while not self._over.wait(every_seconds):
            try:
                self._look()
            except MultiGrainError as error:
                logger.warning("the index was not looked at for a new generation: %s", error)
            except Exception:  # whatever it was, the next look may see what was published
                logger.exception("the index was not looked at for a new generation")

    def _look(self) -> None:
        self._source.update()
        pointer = read_current(self._layout)
        with self._engine.generations.lease() as searcher:
            is_served = pointer is None or pointer.generation == searcher.generation
        # One that was refused is not read again and again: its files can be large.
        if is_served or pointer == self._tried:
            return
        try:
            self.begin()
        except ReloadInProgressError:
            return

    def _run(self, job: ReloadJob) -> None:
        try:
            self._source.update()
            self._tried = read_current(self._layout)
            searcher = self._source.mended(self._opened)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one before answers on
            self._refuse(job, error)
            return
        self._engine.generations.swap(searcher)
        self._refresh()
        self.last_error = None
        job.succeed(searcher.generation)
        self._note_end(job)
        logger.info("reload %s: generation %s answers", job.id, searcher.generation)

    def _refresh(self) -> None:
        """Take in what was added between the last look and the swap."""
        if self._over.is_set():
            return  # what was taken up is closed already
        try:
            with self._engine.generations.lease() as searcher:
                searcher.refresh()
        except Exception as error:  # noqa: BLE001 - a job that never ends would keep out the next
            logger.warning("what was added last is not found yet: %r", error)

    def _refuse(self, job: ReloadJob, error: Exception) -> None:
        if self._over.is_set():
            message = "the service has ended"
        elif isinstance(error, MultiGrainError):
            # Anyone may ask for the health: where the folder lies is not theirs to know.
            said = str(error)
            for root in {str(self._layout.root), self._source.address}:
                said = said.replace(f"{root}/", "").replace(root, "the index")
            message = plain_text(said)  # it may name a file whose name is no UTF-8
            logger.warning("reload %s: the generation before stays: %s", job.id, error)
        else:
            message = "unexpected; the server's log has the cause"
            logger.error("reload %s: the generation before stays", job.id, exc_info=error)
        self.last_error = message
        job.fail(message)
        self._note_end(job)

    def _opened(self, root: Path) -> Searcher:
        searcher = self._open(root)
        try:
            searcher.require_model(self._embedder)
            searcher.check_files()
            searcher.check_canaries(self._embedder)
            searcher.refresh()  # photos that were added while the files were read
        except BaseException:
            searcher.close()
            raise
        return searcher


class _OnEngineThread:
    """An embedder whose forward passes wait their turn among those of the searches."""

    def __init__(self, embedder: Embedder, engine_thread: Executor) -> None:
        self._embedder = embedder
        self._engine_thread = engine_thread
        self.fingerprint = embedder.fingerprint
        self.engine = embedder.engine
        self.precision = embedder.precision

    def read(self, source: bytes) -> Prepared:
        """Decode a photo here, in the caller's thread."""
        return self._embedder.read(source)

    def embed_pixels(self, pixels: Sequence[Pixels], batch_size: int) -> Embeddings:
        """Embed on the model's own thread."""
        work = self._engine_thread.submit(self._embedder.embed_pixels, pixels, batch_size)
        return work.result()
