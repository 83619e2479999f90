"""Search over the shards of a generation: coarse once, lists per shard, exact re-scoring.

Letters: Q queries, D embedding, k neighbours.
"""

import copy
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from index.codebook.factory import start_nprobe, start_rerank
from index.errors import IndexFolderError
from index.faiss_gpu import FaissDevice
from index.layout import Layout
from index.manifest import ShardPart
from index.rows import RowRange, Rows, StoredRows
from index.searching.candidates import CandidateSource, Depth, ScanCandidates
from index.searching.filters import plan_filter
from index.searching.lists import FaissLists, Lists
from index.searching.scoring import Ranked, Scored, score

_NOTHING = Ranked(np.empty(0, np.int64), np.empty(0, np.float32))


class Ranker:
    """Exact cosines of the nearest live rows; holds no per-request state.

    Candidates come from the shards' own lists, unless others are given.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        codebook: str,
        shards: Sequence[ShardPart],
        live: NDArray[np.bool_],
        dim: int,
        mapped: bool = False,
        lists: Lists | None = None,
    ) -> None:
        self.dim = dim
        self._lists = lists or FaissLists(
            layout, codebook=codebook, shards=shards, dim=dim, mapped=mapped
        )
        self.rows = StoredRows(
            (RowRange(part.first_id, part.n, layout.embeddings(part.folder)) for part in shards),
            dim=dim,
        )
        self._find_only(live)

    def search_on(self, device: FaissDevice) -> None:
        """Search the lists on a GPU where there is one that takes them; scores are as exact."""
        self._lists.search_on(device)

    def without(self, hidden: Collection[int]) -> "Ranker":
        """The same shards, of which these ids are not found; shares what was opened."""
        if not hidden:
            return self
        live = self._live.copy()
        live[list(hidden)] = False
        other = copy.copy(self)
        other._find_only(live)  # noqa: SLF001 - of its own class
        return other

    def _find_only(self, live: NDArray[np.bool_]) -> None:
        self._live, self.num_live = live, int(live.sum())
        self._all = self._lists.of(live)

    @property
    def nlist(self) -> int:
        """The number of lists; 0 where every row is compared."""
        return self._lists.nlist

    @property
    def has_own_lists(self) -> bool:
        """Whether candidates come from the shards' own lists, which give the same everywhere."""
        return self._lists.are_own

    @property
    def live_ids(self) -> NDArray[np.int64]:
        """The ids that can be found, ascending."""
        return np.flatnonzero(self._live)

    def is_live(self, row_id: int) -> bool:
        """Whether a row of this id can be found."""
        return 0 <= row_id < len(self._live) and bool(self._live[row_id])

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        exact: bool = False,
        allowed: NDArray[np.int64] | None = None,
    ) -> list[Ranked]:
        """The k nearest live rows of each query fp32 [Q, D]; ties by id, fewer when fewer exist.

        `nprobe` lists and `rerank` candidates, at least 20 and 2 k, are looked at first, and more
        where they give too few; without them the factory's start values. `exact` compares every
        row instead. `allowed` holds the ids that may be found, int64; a filter that leaves many
        rows looks at up to 8 times the lists. Raises IndexFolderError for a wrong shape, k,
        nprobe or rerank below 1, or a query that is zero or not finite.
        """
        queries = self._checked(queries, k, nprobe, rerank)
        chosen = start_nprobe(self.nlist) if nprobe is None else nprobe
        most = self._lists.most_candidates
        exact = exact or (most is not None and k > most)
        source: CandidateSource = self._all
        if allowed is not None:
            plan = plan_filter(allowed, self._live)
            chosen = int(np.ceil(chosen * plan.widening))
            is_scan = plan.is_scan or exact
            source = ScanCandidates(self.rows, plan.ids) if is_scan else self.within(plan.ids)
        elif exact:
            source = ScanCandidates(self.rows, self.live_ids)
        return self.search_in(source, queries, k, nprobe=chosen, rerank=rerank)

    def coded(
        self, queries: NDArray[np.float32], k: int, *, nprobe: int
    ) -> list[NDArray[np.int64]]:
        """The ids of the k nearest by their codes alone, best first; raises as `search` does."""
        queries = self._checked(queries, k, nprobe, None)
        found = self._all.find(queries, Depth(min(nprobe, self.nlist), k))
        return [ids[ids >= 0] for ids in found.ids]

    def scan(
        self, rows: Rows, ids: NDArray[np.int64], queries: NDArray[np.float32], k: int
    ) -> list[Ranked]:
        """The k nearest of a few other rows, ids int64 [n] ascending, scored as the shards' are."""
        queries = self._checked(queries, k, None, None)
        return self.search_in(ScanCandidates(rows, ids), queries, k, nprobe=1, rows=rows)

    def within(self, ids: NDArray[np.int64]) -> CandidateSource:
        """The lists, of which only these live ids may be found."""
        chosen = np.zeros_like(self._live)
        chosen[ids] = True
        return self._lists.of(chosen)

    def search_in(
        self,
        source: CandidateSource,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int,
        rerank: int | None = None,
        rows: Rows | None = None,
    ) -> list[Ranked]:
        """The k nearest rows of a source to unit queries fp32 [Q, D], scored by the shards' rows.

        `rows` are given where the source proposes others.
        """
        k = min(k, source.num_rows)
        if k == 0:
            return [_NOTHING] * len(queries)
        num_candidates = max(rerank or 0, start_rerank(k))
        depth = Depth(min(nprobe, self.nlist), min(num_candidates, source.num_rows))
        ranked = [_NOTHING] * len(queries)
        unsettled = np.arange(len(queries))
        while len(unsettled):
            found = source.find(queries[unsettled], depth)
            scored = score(rows or self.rows, queries[unsettled], found.ids)
            deeper = source.deeper(depth)
            is_settled = _settled(scored, k, is_cut=depth.num_candidates < source.num_rows)
            if deeper == depth:
                is_settled[:] = True
            for place in np.flatnonzero(is_settled).tolist():
                ranked[unsettled[place]] = scored.first(place, k)
            unsettled, depth = unsettled[~is_settled], deeper
        return ranked

    def _checked(
        self,
        queries: NDArray[np.float32],
        k: int,
        nprobe: int | None,
        rerank: int | None,
    ) -> NDArray[np.float32]:
        if queries.ndim != 2 or queries.shape[1] != self.dim:  # noqa: PLR2004 - [Q, D]
            raise IndexFolderError(
                f"queries have shape {list(queries.shape)}, this index needs [Q, {self.dim}]"
            )
        if any(number is not None and number < 1 for number in (k, nprobe, rerank)):
            raise IndexFolderError(
                f"k is {k}, nprobe is {nprobe}, rerank is {rerank}: all must be at least 1"
            )
        norms = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise IndexFolderError("a query is zero or holds a value that is not finite")
        return np.ascontiguousarray(queries / norms, dtype=np.float32)


def _settled(scored: Scored, k: int, *, is_cut: bool) -> NDArray[np.bool_]:
    """Which queries need not be searched deeper, bool [Q].

    Candidates that all tie with the k-th may hide a smaller id behind the last of them.
    """
    has_enough: NDArray[np.bool_] = scored.num_found >= k
    if not is_cut:
        return has_enough
    is_full: NDArray[np.bool_] = scored.num_found == scored.ids.shape[1]
    is_tied: NDArray[np.bool_] = scored.scores[:, k - 1] == scored.scores[:, -1]
    return has_enough & ~(is_full & is_tied)
