"""Candidates found in Milvus beside those found in the index's own lists, at the same parameters.

Milvus Lite, in a file. Each trains lists of its own on the same rows, so neighbours differ by
chance where few lists are searched: several collections are compared, and the mean is judged.
"""

import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from benchmarks.index_data import NumberEmbedder, synthetic_views, write_numbers
from benchmarks.index_search import K, exact_tenth, recall_of
from index.backend import FAISS, Backend
from index.builder import BuildOptions, build_index
from index.searcher import Searcher

NUM_ROWS, NUM_QUERIES, NUM_COLLECTIONS = 10_000, 500, 3
FACTORY = "IVF128,SQ8"
LISTS = (1, 2, 4, 8, 16)
_ON_MILVUS = Backend("milvus")


class Recalls(NamedTuple):
    """Recall@10 in so many lists, of each collection: [collections]."""

    nprobe: int
    faiss: NDArray[np.float64]
    milvus: NDArray[np.float64]

    @property
    def difference(self) -> float:
        """How far Milvus's mean lies from faiss's, either way."""
        return abs(float(np.mean(self.milvus - self.faiss)))

    def text(self) -> str:
        """One line for people: the means, and their difference with its standard error."""
        gained = self.milvus - self.faiss
        error = gained.std(ddof=1) / np.sqrt(len(gained))
        return (
            f"{self.nprobe} of {FACTORY}'s lists: recall@10 of faiss {self.faiss.mean():.4f}, of "
            f"Milvus {gained.mean():+.4f} (standard error {error:.4f})"
        )


def measure(scratch: Path) -> list[Recalls]:
    """Compare on collections that differ in all they hold."""
    found = [_measure(scratch / f"{seed}", seed) for seed in range(NUM_COLLECTIONS)]
    both = np.array(found)
    return [Recalls(nprobe, *both[:, :, at].T) for at, nprobe in enumerate(LISTS)]


def _measure(scratch: Path, seed: int) -> list[list[float]]:
    """Recall of faiss and of Milvus, for each number of lists."""
    scratch.mkdir(parents=True)
    rows, root = scratch / "rows.f32", scratch / "index"
    views = synthetic_views(NUM_ROWS, num_queries=NUM_QUERIES, seed=seed, file=rows)
    (scratch / "checkpoint").write_bytes(b"rows stand in a file: there is no model")
    start = time.perf_counter()
    build_index(
        [write_numbers(scratch / "photos", NUM_ROWS)],
        scratch / "checkpoint",
        root,
        NumberEmbedder(rows),
        BuildOptions(
            factory=FACTORY,
            backend=Backend("milvus", SecretStr(str(scratch / "milvus.db"))),
        ),
    )
    print(f"{NUM_ROWS} rows built and loaded in {time.perf_counter() - start:.0f} s", flush=True)
    least = exact_tenth(views.rows, views.queries)
    return [_recalls(root, backend, views.queries, least) for backend in (FAISS, _ON_MILVUS)]


def _recalls(
    root: Path, backend: Backend, queries: NDArray[np.float32], least: NDArray[np.float32]
) -> list[float]:
    with closing(Searcher.open(root, backend=backend)) as searcher:
        return [recall_of(partial(_scores, searcher, n), queries, least) for n in LISTS]


def _scores(searcher: Searcher, nprobe: int, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosines of what is found [Q, k], -1 where there is less."""
    scores = np.full((len(queries), K), -1, np.float32)
    for row, ranked in zip(scores, searcher.rank(queries, K, nprobe=nprobe), strict=True):
        row[: len(ranked.scores)] = ranked.scores
    return scores
