"""The parts of a service, opened as its settings say."""

from collections.abc import Callable
from concurrent.futures import Executor

from index.backend import Backend
from index.replica.source import IndexSource
from index.searcher import SearcherOptions
from service.batching.batch_runs import Result
from service.batching.batcher import Batcher
from service.batching.device_errors import translated
from service.batching.queries import Answer, Query
from service.serving.engine import Engine
from service.settings import Settings

# How long a batch waits for photos that are being decoded. On a CPU nothing else goes on then, and
# a pass that is not full costs more than the wait; this bounds what one huge photo costs others.
_MAX_WAIT_MS, _MAX_WAIT_MS_ON_CPU = 4.0, 200.0

# One small object is asked for; a copy of an index needs no quicker news of it.
_REMOTE_POLL_SECONDS = 30.0


def searcher_options(settings: Settings) -> SearcherOptions:
    """How each generation is opened, the first and those of reloads."""
    return {
        "mapped": settings.mapped,
        "device": settings.search_device,
        "catalog": settings.catalog,
        "backend": Backend(settings.backend, settings.milvus_uri),
    }


def open_engine(settings: Settings, source: IndexSource, *, max_batch: int) -> Engine:
    """Load, verify and warm model and index; raises MultiGrainError."""
    return Engine.open(
        source,
        checkpoint=settings.checkpoint,
        device=settings.device,
        cache_dir=settings.cache_dir,
        max_batch=max_batch,
        max_cached=settings.embedding_cache,
        options=searcher_options(settings),
    )


def make_batcher(
    settings: Settings,
    engine: Engine,
    *,
    executor: Executor,
    max_batch: int,
    note_batch: Callable[[int, Result], None],
) -> Batcher[Query, Answer]:
    """The batcher of an engine, which decodes photos between two forward passes on a CPU."""
    on_cpu = engine.embedder.device == "cpu"
    max_wait_ms = settings.max_wait_ms
    if max_wait_ms is None:
        max_wait_ms = _MAX_WAIT_MS_ON_CPU if on_cpu else _MAX_WAIT_MS
    batcher = Batcher[Query, Answer](
        translated(engine.answer),
        executor=executor,
        max_batch=max_batch,
        max_wait_seconds=max_wait_ms / 1000,
        max_queue=settings.max_queue,
        decode_between=on_cpu,
        max_of_client=settings.per_client_inflight or max(1, settings.max_queue // 4),
        note_batch=note_batch,
    )
    engine.note_embedded = batcher.note_computed
    return batcher


def poll_seconds(settings: Settings, source: IndexSource) -> float:
    """How often CURRENT is looked at for a new generation; 0: never."""
    if settings.reload_poll_s is not None:
        return settings.reload_poll_s
    return _REMOTE_POLL_SECONDS if source.is_remote else 0.0
