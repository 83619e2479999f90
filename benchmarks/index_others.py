"""Queries a second beside graphs: faiss HNSW32, and usearch where it is installed."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import DIM, Views
from benchmarks.index_search import BATCH, TARGETS, TUNING_QUERIES, K, exact_tenth, rate, recall_of
from benchmarks.report import Target

EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256)

Queries = NDArray[np.float32]
Search = Callable[[Queries], NDArray[np.float32]]


class Other(NamedTuple):
    """A graph: seconds to build it, its fastest search of the recall, queries a second."""

    name: str
    build_seconds: float
    ef: int
    rate: float


def measure(views: Views) -> list[Other]:
    """Build each graph on one thread and find its fastest search at recall 0.95."""
    faiss.omp_set_num_threads(1)
    queries = views.queries[TUNING_QUERIES:]
    least = exact_tenth(views.rows, queries)
    makers: dict[str, Callable[[NDArray[np.float32]], Callable[[int], Search]]]
    makers = {"faiss HNSW32": _faiss_hnsw}
    if importlib.util.find_spec("usearch") is not None:
        makers["usearch f16"] = _usearch
    found = list[Other]()
    for name, make in makers.items():
        start = time.perf_counter()
        search_at = make(views.rows)
        seconds = time.perf_counter() - start
        for ef in EF_SEARCH:
            if recall_of(search_at(ef), queries, least) >= TARGETS[0]:
                found.append(Other(name, seconds, ef, rate(search_at(ef), queries)))
                break
    return found


def _faiss_hnsw(rows: NDArray[np.float32]) -> Callable[[int], Search]:
    index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(rows)

    def at(ef: int) -> Search:
        params = faiss.SearchParametersHNSW(efSearch=ef)
        return lambda queries: index.search(queries, K, params=params)[0]

    return at


def _usearch(rows: NDArray[np.float32]) -> Callable[[int], Search]:
    from usearch.index import Index  # type: ignore[import-not-found]

    index: Any = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=32, expansion_add=128)
    index.add(np.arange(len(rows)), rows, threads=1)

    def at(ef: int) -> Search:
        def search(queries: Queries) -> NDArray[np.float32]:
            index.expansion_search = ef
            ids = index.search(queries, K, threads=1).keys.astype(np.int64)
            return np.einsum("qkd,qd->qk", rows[ids], queries)

        return search

    return at


def table(others: list[Other]) -> str:
    """Markdown of what was measured."""
    lines = ["| graph | built in, s | ef | queries/s |", "|---|---|---|---|"]
    lines += [f"| {o.name} | {o.build_seconds:.0f} | {o.ef} | {o.rate:.0f} |" for o in others]
    return f"batches of {BATCH}, one thread\n\n" + "\n".join(lines)


def targets(others: list[Other], ours: float) -> list[Target]:
    """Ours over each."""
    return [Target(f"queries/s / {other.name}", ours / other.rate, ">=", 1.5) for other in others]
