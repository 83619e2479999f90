"""Numbers that are looked up when somebody asks for them."""

from collections.abc import Iterator

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.serving.runtime import Ready, Runtime


class StateMetrics(Collector):
    """Queue, index, model and cache of a runtime as they are now; may be read by any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def describe(self) -> Iterator[Metric]:
        """Nothing before the first look: the names depend on no state that is there yet."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every number there is; none of model and index while they are being opened."""
        ready = self._runtime.opened
        if ready is None:
            return
        yield _gauge("queue_depth", "Requests that wait for a batch.", ready.batcher.num_queued)
        yield _gauge("arriving", "Requests being decoded.", ready.batcher.num_arriving)
        yield from _of_index(ready)
        yield _of_model(ready)
        yield _of_cache(ready)
        if str(ready.engine.embedder.device).startswith("cuda"):
            yield _of_gpu()


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"multigrain_{name}", words, value=value)


def _of_index(ready: Ready) -> Iterator[Metric]:
    with ready.engine.generations.lease() as searcher:
        counts, num_added = searcher.manifest.counts, searcher.num_added
        num_main = searcher.num_live - num_added
        generation, manifest = searcher.generation, searcher.manifest
    vectors = GaugeMetricFamily(
        "multigrain_index_vectors",
        "Photos that can be found: in the generation, added since; and rows of deleted ones.",
        labels=["part"],
    )  # fmt: skip
    vectors.add_metric(["main"], num_main)
    vectors.add_metric(["adds"], num_added)
    vectors.add_metric(["deleted"], counts.rows - num_main)
    yield vectors
    info = GaugeMetricFamily(
        "multigrain_index_info", "The generation that answers.",
        labels=["generation", "model", "preprocess"],
    )  # fmt: skip
    rule, size = (str(manifest.model.preprocessing.get(key, "")) for key in ("rule", "size"))
    info.add_metric([generation, manifest.model.fingerprint[:12], f"{rule}-{size}"], 1)
    yield info


def _of_model(ready: Ready) -> Metric:
    embedder = ready.engine.embedder
    info = GaugeMetricFamily(
        "multigrain_model_info", "The loaded model.",
        labels=["backbone", "dtype", "device", "engine"],
    )  # fmt: skip
    backbone = embedder.document.backbone.name
    info.add_metric([backbone, embedder.precision, str(embedder.device), embedder.engine], 1)
    return info


def _of_cache(ready: Ready) -> Metric:
    cache = ready.engine.cache
    looked_up = CounterMetricFamily(
        "multigrain_embedding_cache", "Photos looked up by the hash of their bytes.",
        labels=["hit"],
    )  # fmt: skip
    looked_up.add_metric(["true"], cache.num_hits)
    looked_up.add_metric(["false"], cache.num_misses)
    return looked_up


def _of_gpu() -> Metric:
    memory = GaugeMetricFamily(
        "multigrain_gpu_memory_bytes", "Memory of the GPU in this process.", labels=["kind"]
    )
    memory.add_metric(["allocated"], torch.cuda.memory_allocated())
    memory.add_metric(["reserved"], torch.cuda.memory_reserved())
    return memory
