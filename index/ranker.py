"""Search over the shards of a generation: coarse once, lists per shard, exact re-scoring.

Letters: Q queries, D embedding, k neighbours.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.factory import start_nprobe, start_rerank
from index.faiss_lists import Candidates, CoarseQuantizer, ShardLists, merge_candidates
from index.layout import Layout
from index.manifest import ShardPart
from index.rotation import Rotation
from index.rows import RowRange, StoredRows


class Ranked(NamedTuple):
    """Neighbours of one query, best first: ids int64 [<= k], exact cosines fp32 [<= k]."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def first(self, k: int) -> "Ranked":
        """The best k."""
        return Ranked(self.ids[:k], self.scores[:k])


class Depth(NamedTuple):
    """How far a search looks: lists a query, candidates re-scored."""

    nprobe: int
    num_candidates: int


class Ranker:
    """Exact cosines of the nearest live rows; holds no per-request state."""

    def __init__(
        self,
        layout: Layout,
        *,
        codebook: str,
        shards: Sequence[ShardPart],
        live: NDArray[np.bool_],
        dim: int,
    ) -> None:
        self.dim, self.num_live = dim, int(live.sum())
        self._coarse = CoarseQuantizer(layout.trained(codebook))
        self._rotation = Rotation.open(layout.rotation(codebook), dim=dim)
        self._shards = [
            ShardLists(
                layout.lists(part.folder),
                first_id=part.first_id,
                num_rows=part.num_codes,
                dim=dim,
            )
            for part in shards
        ]
        self._selectors: list[Any] = [part.selector(live) for part in self._shards]
        self.rows = StoredRows(
            (RowRange(part.first_id, part.n, layout.embeddings(part.folder)) for part in shards),
            dim=dim,
        )

    def search(
        self, queries: NDArray[np.float32], k: int, *, nprobe: int | None = None
    ) -> list[Ranked]:
        """The k nearest live rows of each query fp32 [Q, D]; ties by id, fewer when fewer exist.

        Raises IndexFolderError for a wrong shape, k or nprobe below 1, or a query that is zero
        or not finite.
        """
        queries = self._checked(queries, k, nprobe)
        if self.num_live == 0:
            nothing = Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
            return [nothing] * len(queries)
        k = min(k, self.num_live)
        depth = self._first_depth(k, nprobe)
        ranked: dict[int, Ranked] = {}
        open_queries = list(range(len(queries)))
        while open_queries:
            found = self._candidates(queries[open_queries], depth)
            for number, ids in zip(open_queries, found.ids, strict=True):
                ranked[number] = self._rescored(queries[number], ids[ids >= 0])
            open_queries = [n for n in open_queries if not self._is_settled(ranked[n], k, depth)]
            depth = self._deeper(depth)
        return [ranked[n].first(k) for n in range(len(queries))]

    def _checked(
        self, queries: NDArray[np.float32], k: int, nprobe: int | None
    ) -> NDArray[np.float32]:
        if queries.ndim != 2 or queries.shape[1] != self.dim:  # noqa: PLR2004 - [Q, D]
            raise IndexFolderError(
                f"queries have shape {list(queries.shape)}, this index needs [Q, {self.dim}]"
            )
        if k < 1 or (nprobe is not None and nprobe < 1):
            raise IndexFolderError(f"k is {k}, nprobe is {nprobe}: both must be at least 1")
        norms = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise IndexFolderError("a query is zero or holds a value that is not finite")
        return np.ascontiguousarray(queries / norms, dtype=np.float32)

    def _first_depth(self, k: int, nprobe: int | None) -> Depth:
        nlist = self._coarse.nlist
        chosen = start_nprobe(nlist) if nprobe is None else nprobe
        return Depth(min(chosen, nlist), min(start_rerank(k), self.num_live))

    def _deeper(self, depth: Depth) -> Depth:
        return Depth(
            min(2 * depth.nprobe, self._coarse.nlist),
            min(2 * depth.num_candidates, self.num_live),
        )

    def _candidates(self, queries: NDArray[np.float32], depth: Depth) -> Candidates:
        queries = self._rotation.apply(queries)
        coarse = self._coarse.assign(queries, depth.nprobe)
        return merge_candidates(
            [
                shard.search(queries, depth.num_candidates, coarse=coarse, selector=selector)
                for shard, selector in zip(self._shards, self._selectors, strict=True)
            ]
        )

    def _rescored(self, query: NDArray[np.float32], ids: NDArray[np.int64]) -> Ranked:
        """Cosines of stored rows, summed in fp64 so that equal rows get equal scores."""
        rows = self.rows.gather(ids).astype(np.float64)
        cosines = (rows @ query.astype(np.float64)) / np.linalg.norm(rows, axis=1)
        scores = np.clip(cosines, -1.0, 1.0).astype(np.float32)
        order = np.lexsort((ids, -scores))
        return Ranked(ids[order], scores[order])

    def _is_settled(self, ranked: Ranked, k: int, depth: Depth) -> bool:
        if depth == self._deeper(depth):
            return True
        if len(ranked.ids) < k:
            return False
        # Candidates that all tie with the k-th may hide a smaller id behind the last of them.
        is_cut = len(ranked.ids) == depth.num_candidates < self.num_live
        return not (is_cut and ranked.scores[k - 1] == ranked.scores[-1])
