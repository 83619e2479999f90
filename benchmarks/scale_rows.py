"""Rows by the million: the memory of a build, opening by memory map, and searches of mapped lists.

Each build, and then the searches of what it made, runs in a process of its own, whose anonymous
memory is watched from here.
"""

import os
import shutil
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import NumberEmbedder, synthetic_views, write_numbers
from benchmarks.index_million import watched
from benchmarks.index_search import exact_tenth, recall_of
from index.build_report import BuildReport
from index.builder import BuildOptions, build_index
from index.searcher import Searcher

# Trained in minutes; the table's own string for two million rows takes hours of a core.
FACTORY = "IVF4096,SQ8"
SHARD_ROWS = 1_000_000
NUM_QUERIES = 1000
K = 10
REPEATS = 5


class Searched(NamedTuple):
    """Seconds to open by memory map (each time), milliseconds a query in batches, and recall."""

    opening: list[float]
    query_ms: float
    recall: float


class Rows(NamedTuple):
    """What building and searching so many rows took; memory is anonymous, at its peak."""

    num_rows: int
    build_seconds: float
    build_peak: int
    search_peak: int
    disk: int
    report: BuildReport
    searched: Searched

    def text(self) -> str:
        """One line for people."""
        stages = ", ".join(f"{name} {took:.1f}" for name, took in self.report.seconds.items())
        found = self.searched
        return (
            f"{self.num_rows} rows, {FACTORY}: {self.build_seconds:.0f} s ({stages}); memory "
            f"{self.build_peak / 2**30:.2f} GiB, searching {self.search_peak / 2**30:.2f} GiB; "
            f"{self.disk / 1e9:.2f} GB on disk; opened in {median(found.opening):.2f} s; "
            f"{found.query_ms:.2f} ms a query, recall@10 {found.recall:.3f}"
        )


def measure(scratch: Path, num_rows: int) -> Rows:
    """Build an index of synthetic rows in one process, search it in another; leaves nothing."""
    scratch.mkdir(parents=True)
    try:
        return _measure(scratch, num_rows)
    finally:
        shutil.rmtree(scratch)


def _measure(scratch: Path, num_rows: int) -> Rows:
    rows, root = scratch / "rows.f32", scratch / "index"
    views = synthetic_views(num_rows, num_queries=NUM_QUERIES, file=rows)
    photos = write_numbers(scratch / "photos", num_rows)
    (scratch / "checkpoint").write_bytes(b"rows stand in a file: there is no model")
    start = time.perf_counter()
    report, build_peak = _in_process(_build, photos, rows, root)
    seconds = time.perf_counter() - start
    least = exact_tenth(views.rows, views.queries)
    searched, search_peak = _in_process(_search, root, views.queries, least)
    disk = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return Rows(num_rows, seconds, build_peak, search_peak, disk, report, searched)


def _in_process(work: Any, *given: Any) -> tuple[Any, int]:
    """What a function gives in a process of its own, and that one's peak of anonymous memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        process = pool.submit(os.getpid).result()
        done: Future[Any] = pool.submit(work, *given)
        peak = watched(done, process)
        return done.result(), peak


def _build(photos: Path, rows: Path, root: Path) -> BuildReport:
    return build_index(
        [photos],
        rows.with_name("checkpoint"),
        root,
        NumberEmbedder(rows),
        BuildOptions(factory=FACTORY, shard_rows=SHARD_ROWS),
    )


def _search(root: Path, queries: NDArray[np.float32], least: NDArray[np.float32]) -> Searched:
    """Open several times; then search with what the build has tuned, in batches."""
    opening = list[float]()
    for _ in range(REPEATS):
        start = time.perf_counter()
        searcher = Searcher.open(root, mapped=True)
        opening.append(time.perf_counter() - start)
        searcher.close()
    searcher = Searcher.open(root, mapped=True)

    def search(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        found = searcher.search(batch, K)
        return np.array([[one.score for one in neighbours] for neighbours in found], np.float32)

    recall = recall_of(search, queries, least)  # also reads the pages it needs
    start = time.perf_counter()
    recall_of(search, queries, least)
    query_ms = (time.perf_counter() - start) / len(queries) * 1e3
    searcher.close()
    return Searched(opening, query_ms, recall)
