"""What the service counts and times, under the names that Prometheus reads."""

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from service.batching.batch_runs import Result
from service.schemas.search import SearchResponse
from service.serving.reload_job import ReloadJob

_PREFIX = "multigrain"
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, *_REQUEST_SECONDS[:-1])
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_BODY_BYTES = tuple(4**power for power in range(5, 13))  # 1 KiB to 16 MiB
_PIXELS = (1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)
_COSINES = tuple(tenth / 10 for tenth in range(11))

# The refusals of a request that might have been answered, by the code of its problem.
_REASON_OF_CODE = {
    "queue_full": "queue_full",
    "client_limit": "client_limit",
    "draining": "draining",
    "not_ready": "not_ready",
    "payload_too_large": "too_large",
    "deadline_exceeded": "deadline",
}
_IMAGE_CODES = frozenset(
    {
        "empty_image",
        "image_undecodable",
        "image_too_many_pixels",
        "image_side_too_long",
        "image_side_too_short",
        "unsupported_media_type",
    }
)


class Metrics:
    """Counters and histograms of one application, in a registry of its own.

    Label values come from fixed sets: route templates, codes, stages; never from a request.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "http_requests", "Requests answered.", "route", "method", "status"
        )
        self.request_seconds = self._histogram(
            "http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            _REQUEST_SECONDS,
            "route",
            "method",
        )
        self.in_flight = Gauge(
            "http_in_flight", "Requests being answered.", namespace=_PREFIX, registry=self.registry
        )
        self._stage_seconds = self._histogram(
            "stage_duration_seconds",
            "Stages of answered searches; infer, search and metadata are those of the batch.",
            _STAGE_SECONDS,
            "stage",
        )
        self._batch_size = self._histogram("batch_size", "Requests in a batch.", _BATCH_SIZES)
        self._batches = self._counter("batches", "Batches run; a failed one is retried.", "result")
        self._rejected = self._counter("rejected", "Requests refused or given up.", "reason")
        self.cancelled = self._counter(
            "cancelled", "Requests whose client left, by what it would have waited for.", "stage"
        )
        self._image_errors = self._counter(
            "image_errors", "Photos that cannot be searched with.", "reason"
        )
        self.upload_bytes = self._histogram("upload_bytes", "Sizes of bodies.", _BODY_BYTES)
        self._image_pixels = self._histogram("image_pixels", "Photos searched with.", _PIXELS)
        self._top1_score = self._histogram(
            "top1_score",
            "Cosine of the first hit; a shift means other photos or a drift.",
            _COSINES,
        )
        self._reloads = self._counter("index_reloads", "Reloads of the index.", "result")
        self._reload_seconds = self._histogram(
            "index_reload_duration_seconds",
            "From the request for a reload to its end.",
            (0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
        )
        self.loop_lag_seconds = Gauge(
            "event_loop_lag_seconds",
            "How late the event loop woke up when last looked at.",
            namespace=_PREFIX,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def note_batch(self, num_requests: int, result: Result) -> None:
        """Count a batch that was run."""
        self._batch_size.observe(num_requests)
        self._batches.labels(result).inc()

    def note_problem(self, code: str) -> None:
        """Count a problem that is a refusal or the fault of a photo."""
        if code in _REASON_OF_CODE:
            self._rejected.labels(_REASON_OF_CODE[code]).inc()
        elif code in _IMAGE_CODES:
            self._image_errors.labels(code).inc()

    def note_search(self, answer: SearchResponse) -> None:
        """Take in an answered search: the photo's size, the first hit's cosine."""
        if answer.query is not None:
            self._image_pixels.observe(answer.query.width * answer.query.height)
        if answer.results and answer.offset == 0:
            self._top1_score.observe(answer.results[0].score)

    def note_stages(self, stages: Mapping[str, float]) -> None:
        """Take in the milliseconds of each stage of an answered search."""
        for stage, milliseconds in stages.items():
            if stage != "total" and milliseconds:  # a stored photo is neither received nor decoded
                self._stage_seconds.labels(stage).observe(milliseconds / 1000)

    def note_reload(self, job: ReloadJob) -> None:
        """Count a reload that has ended."""
        self._reloads.labels(job.status).inc()
        self._reload_seconds.observe(job.seconds or 0.0)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, namespace=_PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, words: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            name, words, labels, namespace=_PREFIX, registry=self.registry, buckets=buckets
        )
