"""Searches: the tuned recall held on other queries, and queries a second beside raw faiss.

The sweep searches the same lists with every number of lists and candidates, re-scoring them with
numpy; its fastest point of the recall asked for is what a user could tune by hand.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import Views
from benchmarks.index_folders import Folder, folder_of
from benchmarks.report import Target
from index.manifest import SearchPart
from index.searching.ranker import Ranker
from index.tuning.tune import tune

K = 10
BATCH = 32
REPEATS = 15
_BLOCK_ROWS = 65_536
TARGETS = (0.95, 0.99)
TUNING_QUERIES = 1000
SWEPT_RERANKS, SWEPT_NPROBES = (20, 50), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
COSINE_ERROR = 5e-6

Queries = NDArray[np.float32]
Search = Callable[[Queries], NDArray[np.float32]]  # [Q, D] -> scores of the neighbours [Q, K]


class Measured(NamedTuple):
    """A search at a recall asked for: the recall it has, and queries a second of each repeat."""

    target: float
    tuned: SearchPart
    recall: float
    ours: list[float]
    raw_point: tuple[int, int]
    raw: list[float]


def measure(folder: Folder, views: Views) -> list[Measured]:
    """Tune on the first queries; judge recall and speed on the others, one thread."""
    faiss.omp_set_num_threads(1)
    ranker = folder.ranker()
    tuning, held_out = views.queries[:TUNING_QUERIES], views.queries[TUNING_QUERIES:]
    least = exact_tenth(views.rows, held_out)
    raw = _Raw(folder)
    found = list[Measured]()
    for target in TARGETS:
        tuned, own = tuned_search(ranker, tuning, target=target)
        point = _best_point(raw, held_out, least, target)
        ours, theirs = rates(own, raw.search_at(*point), held_out)
        found.append(Measured(target, tuned, recall_of(own, held_out, least), ours, point, theirs))
    return found


def tuned_search(
    ranker: Ranker, queries: Queries, *, target: float = TARGETS[0]
) -> tuple[SearchPart, Search]:
    """The search a build would tune with these queries."""
    tuned = tune(ranker, queries, target=target, num_threads=1)
    assert tuned.nprobe is not None
    assert tuned.rerank is not None
    return tuned, search_of(ranker, tuned.nprobe, tuned.rerank)


def exact_tenth(rows: NDArray[np.float32], queries: Queries) -> NDArray[np.float32]:
    """The cosine of each query's tenth neighbour among the rows as they are stored, [Q]."""
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        stored = rows[start : start + _BLOCK_ROWS].astype(np.float16).astype(np.float32)
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        cosines = np.hstack([best, queries @ stored.T])
        best = np.partition(cosines, -K, axis=1)[:, -K:]
    return best[:, 0]


def search_of(ranker: Ranker, nprobe: int, rerank: int) -> Search:
    """Our search of so many lists that re-scores so many candidates."""

    def search(queries: Queries) -> NDArray[np.float32]:
        ranked = ranker.search(queries, K, nprobe=nprobe, rerank=rerank)
        return np.stack([one.scores for one in ranked])

    return search


class _Raw:
    """faiss itself over the folder's one shard, candidates re-scored with numpy."""

    def __init__(self, folder: Folder) -> None:
        (lists,) = (folder.root / "shards").glob("*/ivf.faiss")
        self.index: Any = faiss.read_index(str(lists))
        self._rows = np.memmap(lists.with_name("emb.f16"), np.float16, "r").reshape(
            self.index.ntotal, -1
        )
        self._norms = np.linalg.norm(self._rows.astype(np.float32), axis=1)

    def search_at(self, nprobe: int, rerank: int) -> Search:
        """A search of so many lists that re-scores so many candidates."""
        params = faiss.SearchParametersIVF(nprobe=nprobe)

        def search(queries: Queries) -> NDArray[np.float32]:
            _, ids = self.index.search(queries, rerank, params=params)
            rows = self._rows[np.maximum(ids, 0)].astype(np.float32)
            scores = np.einsum("qkd,qd->qk", rows, queries) / self._norms[ids]
            scores[ids < 0] = -1
            best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
            found: NDArray[np.float32] = np.take_along_axis(scores, best, axis=1)
            return found

        return search


def _best_point(
    raw: _Raw, queries: Queries, least: NDArray[np.float32], target: float
) -> tuple[int, int]:
    """The fastest search of the sweep that has the recall: of each depth the fewest lists."""
    rates = dict[tuple[int, int], float]()
    for rerank in SWEPT_RERANKS:
        for nprobe in SWEPT_NPROBES:
            search = raw.search_at(nprobe, rerank)
            if recall_of(search, queries, least) >= target:
                rates[nprobe, rerank] = rate(search, queries)
                break
    if not rates:
        raise ValueError(f"no search of the sweep reaches recall {target}: {raw.index.nlist} lists")
    return max(rates, key=lambda point: rates[point])


def recall_of(search: Search, queries: Queries, least: NDArray[np.float32]) -> float:
    """Recall@10: neighbours at least as near as the tenth true one, whose cosine is `least`."""
    hits = [
        (search(queries[at : at + BATCH]) >= least[at : at + BATCH, None] - COSINE_ERROR).mean()
        for at in range(0, len(queries), BATCH)
    ]
    return float(np.mean(hits))


def rate(search: Search, queries: Queries) -> float:
    """Queries a second, in batches."""
    start = time.perf_counter()
    for at in range(0, len(queries), BATCH):
        search(queries[at : at + BATCH])
    return len(queries) / (time.perf_counter() - start)


def rates(first: Search, second: Search, queries: Queries) -> tuple[list[float], list[float]]:
    """Queries a second of two searches in each repeat, batch by batch in turns.

    So that both meet the same machine. The second is half the queries behind, or it would find
    what the first has just read.
    """
    batches = [queries[at : at + BATCH] for at in range(0, len(queries), BATCH)]
    behind = batches[len(batches) // 2 :] + batches[: len(batches) // 2]
    found = list[float](), list[float]()
    for _ in range(REPEATS):
        seconds = [0.0, 0.0]
        for pair in zip(batches, behind, strict=True):
            for number, search in enumerate((first, second)):
                start = time.perf_counter()
                search(pair[number])
                seconds[number] += time.perf_counter() - start
        for number in range(2):
            found[number].append(len(queries) / seconds[number])
    return found


def measure_orders(scratch: Path, views: Views) -> float:
    """Lists to search at recall 0.95 of a folder sorted by class, over those of a shuffled one."""
    shuffled = np.random.default_rng(1).permutation(len(views.rows))
    found = list[int]()
    for name, order in (("sorted", np.arange(len(views.rows))), ("shuffled", shuffled)):
        folder = folder_of(scratch / name, views.rows, order=order)
        folder.build()
        tuned = tune(
            folder.ranker(), views.queries[:TUNING_QUERIES], target=TARGETS[0], num_threads=1
        )
        found.append(int(tuned.nprobe or 0))
    return found[0] / found[1]


class Shards(NamedTuple):
    """The same rows in several shards and in one: equal answers, and time over time."""

    same: bool
    slowdown: float


def measure_shards(one: Ranker, several: Ranker, queries: Queries, *, nprobe: int) -> Shards:
    """Ids and scores of a thousand queries; the time of single ones, in turns, one thread."""
    queries = queries[:TUNING_QUERIES]
    answers = [ranker.search(queries, K, nprobe=nprobe) for ranker in (one, several)]
    same = all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.scores, b.scores)
        for a, b in zip(*answers, strict=True)
    )
    ratios = list[float]()
    for _ in range(REPEATS):
        times = [_time_single(ranker, queries[:200], nprobe) for ranker in (one, several)]
        ratios.append(times[1] / times[0])
    return Shards(same, median(ratios))


def shard_targets(shards: Shards, num_shards: int) -> list[Target]:
    """The same answers; up to four shards, in nearly the same time."""
    most, not_here = 1.5, None if num_shards <= 4 else "no target for so many"
    name = f"{num_shards} shards"
    return [
        Target(f"{name} answer as one (1: yes)", float(shards.same), ">=", 1),
        Target(f"single queries, {name} / one", shards.slowdown, "<=", most, not_here),
    ]


def _time_single(ranker: Ranker, queries: Queries, nprobe: int) -> float:
    start = time.perf_counter()
    for number in range(len(queries)):
        ranker.search(queries[number : number + 1], K, nprobe=nprobe)
    return time.perf_counter() - start


def table(measured: list[Measured]) -> str:
    """Markdown of what was measured."""
    titles = "recall asked | nprobe, rerank | lower bound | on other queries | ours, queries/s"
    lines = [
        f"| {titles} | raw: nprobe, rerank | raw, queries/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        tuned = one.tuned
        lines.append(
            f"| {one.target} | {tuned.nprobe}, {tuned.rerank} | {tuned.recall_lower:.4f} "
            f"| {one.recall:.4f} | {median(one.ours):.0f} ({min(one.ours):.0f} - "
            f"{max(one.ours):.0f}) | {one.raw_point[0]}, {one.raw_point[1]} "
            f"| {median(one.raw):.0f} ({min(one.raw):.0f} - {max(one.raw):.0f}) |"
        )
    return "\n".join(lines)


def targets(measured: list[Measured]) -> Iterator[Target]:
    """The bound that tuning promises, the recall found elsewhere, and the speed at 0.95."""
    for one in measured:
        bound = one.tuned.recall_lower or 0.0
        yield Target(f"recall {one.target}, lower bound", bound, ">=", one.target)
        yield Target(f"recall {one.target}, on other queries", one.recall, ">=", one.target - 0.01)
    first = measured[0]
    ratio = median(a / b for a, b in zip(first.ours, first.raw, strict=True))
    yield Target(f"queries/s at {first.target} / best of a raw sweep", ratio, ">=", 0.9)
