"""Queries a second beside other indexes: faiss HNSW32, usearch and autofaiss's own choice.

usearch is measured where it is installed; autofaiss in an environment of its own, which is made
where it is missing, for it needs an older numpy. Each is searched at its first setting of recall
0.95, in turns with ours.
"""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index_autofaiss import AutoFaiss
from benchmarks.index_data import DIM, Views
from benchmarks.index_search import (
    BATCH,
    TARGETS,
    TUNING_QUERIES,
    K,
    Search,
    exact_tenth,
    rates,
    recall_of,
)
from benchmarks.report import Target
from multigrain.cpus import num_cpus

EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256)

Queries = NDArray[np.float32]


class Other(NamedTuple):
    """An index: seconds to build it, the search measured, queries a second of it and of ours."""

    name: str
    build_seconds: float
    setting: str
    recall: float
    rates: list[float]
    ours: list[float]
    wanted: float


class _Beside:
    """Ours, and the queries that others are asked too."""

    def __init__(self, views: Views, ours: Search) -> None:
        self.queries, self._ours = views.queries[TUNING_QUERIES:], ours
        self._least = exact_tenth(views.rows, self.queries)

    def recall(self, search: Search) -> float:
        return recall_of(search, self.queries, self._least)

    def measured(
        self, name: str, search: Search, setting: str, seconds: float, wanted: float
    ) -> Other:
        ours, theirs = rates(self._ours, search, self.queries)
        return Other(name, seconds, setting, self.recall(search), theirs, ours, wanted)


def measure_graphs(views: Views, ours: Search) -> list[Other]:
    """Build each graph on all cores and search it on one, at the least ef of recall 0.95."""
    makers = {"faiss HNSW32": _faiss_hnsw}
    if importlib.util.find_spec("usearch") is not None:
        makers["usearch f16"] = _usearch
    beside = _Beside(views, ours)
    found = list[Other]()
    for name, make in makers.items():
        start = time.perf_counter()
        search_at = make(views.rows)
        seconds = time.perf_counter() - start
        faiss.omp_set_num_threads(1)
        # The last one is measured too where none reaches it.
        ef = next(
            (e for e in EF_SEARCH if beside.recall(search_at(e)) >= TARGETS[0]), EF_SEARCH[-1]
        )
        found.append(beside.measured(name, search_at(ef), f"ef {ef}", seconds, wanted=1.5))
    return found


def measure_autofaiss(views: Views, ours: Search, environment: Path) -> list[Other]:
    """The index autofaiss builds and tunes when it is given the rows and nothing else."""
    faiss.omp_set_num_threads(1)
    with AutoFaiss(environment, views.rows) as other:
        return [
            _Beside(views, ours).measured(
                "autofaiss", other.search, other.choice, other.build_seconds, wanted=10
            )
        ]


def _faiss_hnsw(rows: NDArray[np.float32]) -> Callable[[int], Search]:
    faiss.omp_set_num_threads(num_cpus())
    index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(rows)

    def at(ef: int) -> Search:
        params = faiss.SearchParametersHNSW(efSearch=ef)
        return lambda queries: index.search(queries, K, params=params)[0]

    return at


def _usearch(rows: NDArray[np.float32]) -> Callable[[int], Search]:
    from usearch.index import Index  # type: ignore[import-not-found]

    index: Any = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=32, expansion_add=128)
    index.add(np.arange(len(rows)), rows)

    def at(ef: int) -> Search:
        def search(queries: Queries) -> NDArray[np.float32]:
            index.expansion_search = ef
            ids = index.search(queries, K, threads=1).keys.astype(np.int64)
            return np.einsum("qkd,qd->qk", rows[ids], queries)

        return search

    return at


def table(others: list[Other]) -> str:
    """Markdown of what was measured."""
    lines = [
        f"batches of {BATCH}, one thread\n",
        "| index | built in, s | search | recall@10 | queries/s | ours |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.name} | {o.build_seconds:.0f} | {o.setting} | {o.recall:.4f} "
        f"| {median(o.rates):.0f} | {median(o.ours):.0f} |"
        for o in others
    ]
    return "\n".join(lines)


def targets(others: list[Other]) -> list[Target]:
    """Ours over each."""
    return [
        Target(
            f"queries/s / {other.name}",
            median(a / b for a, b in zip(other.ours, other.rates, strict=True)),
            ">=",
            other.wanted,
        )
        for other in others
    ]
