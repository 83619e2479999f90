"""A shard's faiss lists, searched.

Letters: D embedding, Q queries, k candidates.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_gpu import FaissDevice
from index.faiss_gpu_lists import GpuLists
from index.faiss_module import coarse_of, load_faiss, read_faiss, require_rows
from index.faiss_preassigned import Candidates, Coarse, search_preassigned

# What a graph of centroids keeps in view. Six of 4,096 lists: recall@10 .974 instead of the .978 of
# a comparison with all, in a quarter of its time.
_LEAST_EF_SEARCH = 16
# Where a search wants more than one list in so many, a graph takes longer than comparing them all.
_LISTS_A_PROBE = 32
# From so many queries on, centroids are compared in one product of matrices. faiss 1.15 waits for
# 128,000 values (250 queries of 512): 32 queries read 4,096 centroids 32 times, .49 ms a query
# instead of .10. Below, the product takes longer than reading them.
_LEAST_PRODUCT_QUERIES = 8


class Chosen(NamedTuple):
    """The rows of a shard that may be found: a flag for each id, and faiss's selector of them."""

    flags: NDArray[np.bool_]
    selector: Any


class ShardLists:
    """The lists of one shard; searching changes nothing, so callers may be concurrent.

    They lie in memory, or, `mapped`, in the file, whose pages the system reads when needed.
    """

    def __init__(
        self, path: Path, *, first_id: int, num_rows: int, dim: int, mapped: bool = False
    ) -> None:
        self._faiss = load_faiss()
        # IO_FLAG_MMAP would start 32 threads in every search, and copy Flat rows to memory.
        self._index = read_faiss(path, self._faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        if self._index.d != dim:
            raise IndexFolderError(f"{path}: damaged, {self._index.d} dimensions, not {dim}")
        require_rows(self._index, num_rows, path)
        self._first_id = first_id
        self._is_ivf = isinstance(self._index, self._faiss.IndexIVF)
        self._on_gpu: GpuLists | None = None

    def copy_to(self, device: FaissDevice) -> None:
        """Search on a GPU from here on, where faiss takes these lists; they stay here as well."""
        if self._is_ivf:
            self._on_gpu = GpuLists.copied(self._index, device)

    def chosen(self, flags: NDArray[np.bool_], bitmap: NDArray[np.uint8]) -> Chosen:
        """The rows with a flag set, of which `bitmap` holds a bit each, low bit first.

        Flat lists store no ids and count rows from 0, so they need a bitmap of their own.
        """
        if not self._is_ivf:
            own = flags[self._first_id : self._first_id + self._index.ntotal]
            bitmap = np.packbits(own, bitorder="little")
        return Chosen(flags, self._faiss.IDSelectorBitmap(bitmap))

    def search(
        self, queries: NDArray[np.float32], k: int, *, coarse: Coarse | None, chosen: Chosen
    ) -> Candidates:
        """The k best chosen rows of unit queries fp32 [Q, D] in the given lists (None: Flat)."""
        # Per thread: one search runs on its caller's thread, so concurrent callers share cores.
        self._faiss.omp_set_num_threads(1)
        if coarse is None:
            params = self._faiss.SearchParameters(sel=chosen.selector)
            scores, rows = self._index.search(queries, k, params=params)
            return Candidates(scores, np.where(rows < 0, -1, rows + self._first_id))
        if self._on_gpu is None:
            return self._search_lists(queries, k, coarse=coarse, selector=chosen.selector)
        found, left = self._on_gpu.search(queries, k, coarse=coarse, flags=chosen.flags)
        if len(left):
            part = Coarse(coarse.scores[left], coarse.lists[left])
            more = self._search_lists(queries[left], k, coarse=part, selector=chosen.selector)
            found.scores[left], found.ids[left] = more
        return found

    def _search_lists(
        self, queries: NDArray[np.float32], k: int, *, coarse: Coarse, selector: Any
    ) -> Candidates:
        # Always with both: without them the selector is lost and nprobe is 1.
        params = self._faiss.SearchParametersIVF(nprobe=coarse.lists.shape[1], sel=selector)
        return search_preassigned(self._index, queries, k, coarse=coarse, params=params)


class CoarseQuantizer:
    """The centroids all shards share."""

    def __init__(self, trained: Path) -> None:
        self._faiss = load_faiss()
        index = read_faiss(trained)
        self._ivf = index if isinstance(index, self._faiss.IndexIVF) else None
        self.nlist = int(self._ivf.nlist) if self._ivf is not None else 0

    def assign(self, queries: NDArray[np.float32], nprobe: int) -> Coarse | None:
        """The nprobe best lists of unit queries fp32 [Q, D]; None where there are no lists."""
        if self._ivf is None:
            return None
        self._faiss.omp_set_num_threads(1)
        self._faiss.cvar.distance_compute_blas_threshold = _LEAST_PRODUCT_QUERIES * self._ivf.d
        coarse = coarse_of(self._ivf)
        if not isinstance(coarse, self._faiss.IndexHNSW):
            return Coarse(*coarse.search(queries, nprobe))
        if nprobe * _LISTS_A_PROBE > self.nlist:
            # A graph may not reach every list, and a search of all lists has to.
            return Coarse(*self._faiss.downcast_index(coarse.storage).search(queries, nprobe))
        depth = max(2 * nprobe, _LEAST_EF_SEARCH)
        params = self._faiss.SearchParametersHNSW(efSearch=depth)
        return Coarse(*coarse.search(queries, nprobe, params=params))


def merge_candidates(found: list[Candidates]) -> Candidates:
    """The best of several shards' candidates [Q, k], in order."""
    if len(found) == 1:
        return found[0]
    scores = np.stack([part.scores for part in found])
    ids = np.stack([part.ids for part in found])
    return Candidates(*load_faiss().merge_knn_results(scores, ids, keep_max=True))


def nearest_rows(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    k: int,
    *,
    num_threads: int,
) -> Candidates:
    """The k best of all rows of unit queries fp32 [Q, D], by inner product, in order.

    Each block is ids int64 [n] and their rows fp32 [n, D]; -1 where fewer than k exist.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(num_threads)
    best = Candidates(
        np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    )
    for ids, rows in blocks:
        scores, places = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
        found = Candidates(scores, np.where(places < 0, -1, ids[places]))
        best = merge_candidates([best, found])
    return best
