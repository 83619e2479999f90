"""A shard's faiss lists: written from its rows, and searched.

Letters: D embedding, n rows, Q queries, k candidates.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_module import load_faiss, write_faiss

_BLOCK_ROWS = 65_536
_LEAST_EF_SEARCH = 64


class Candidates(NamedTuple):
    """Found rows, best first: approximate scores fp32 [Q, k], ids int64 [Q, k], -1 for none."""

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]


class Coarse(NamedTuple):
    """The lists to search: numbers int64 [Q, nprobe] and their centroids' scores fp32."""

    scores: NDArray[np.float32]
    lists: NDArray[np.int64]


def encode_rows(
    trained: Path,
    rows: NDArray[np.float16],
    target: Path,
    *,
    first_id: int,
    coded: NDArray[np.bool_] | None = None,
    num_threads: int,
) -> None:
    """Write the lists of fp16 rows [n, D] with ids first_id .. first_id + n - 1.

    `coded` [n] tells the rows that the lists are to hold, None: all; Flat lists hold every row.
    Raises IndexFolderError when faiss did not store every row.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(num_threads)
    index = _read(trained)
    num_rows = 0
    for numbers, block in _blocks(rows, coded):
        num_rows += len(block)
        if isinstance(index, faiss.IndexIVF):
            index.add_with_ids(block, numbers + first_id)
        else:
            index.add(block)
    _require_rows(index, num_rows, target)
    write_faiss(index, target)


def _blocks(
    rows: NDArray[np.float16], coded: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Row numbers and rows fp32 of those to be encoded, some at a time."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        numbers = np.arange(start, start + len(block), dtype=np.int64)
        if coded is not None:
            chosen = coded[start : start + len(block)]
            block, numbers = block[chosen], numbers[chosen]
        if len(block):
            yield numbers, np.ascontiguousarray(block, dtype=np.float32)


class ShardLists:
    """The lists of one shard in memory; searching changes nothing, so callers may be concurrent."""

    def __init__(self, path: Path, *, first_id: int, num_rows: int, dim: int) -> None:
        self._faiss = load_faiss()
        self._index = _read(path)
        if self._index.d != dim:
            raise IndexFolderError(f"{path}: damaged, {self._index.d} dimensions, not {dim}")
        _require_rows(self._index, num_rows, path)
        self._first_id = first_id
        self._is_ivf = isinstance(self._index, self._faiss.IndexIVF)

    def selector(self, live: NDArray[np.bool_]) -> Any:
        """A faiss selector of the live ids; Flat lists store no ids and count rows from 0."""
        if not self._is_ivf:
            live = live[self._first_id : self._first_id + self._index.ntotal]
        return self._faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))

    def search(
        self, queries: NDArray[np.float32], k: int, *, coarse: Coarse | None, selector: Any
    ) -> Candidates:
        """The k best live rows of unit queries fp32 [Q, D] in the given lists (None: Flat)."""
        # Per thread: one search runs on its caller's thread, so concurrent callers share cores.
        self._faiss.omp_set_num_threads(1)
        if coarse is None:
            params = self._faiss.SearchParameters(sel=selector)
            scores, rows = self._index.search(queries, k, params=params)
            return Candidates(scores, np.where(rows < 0, -1, rows + self._first_id))
        return self._search_preassigned(queries, k, coarse=coarse, selector=selector)

    def _search_preassigned(
        self, queries: NDArray[np.float32], k: int, *, coarse: Coarse, selector: Any
    ) -> Candidates:
        # The wrapper of search_preassigned takes no parameters, and without them the selector
        # is lost and nprobe is 1; so the C entry is called, always with both.
        params = self._faiss.SearchParametersIVF(nprobe=coarse.lists.shape[1], sel=selector)
        found = Candidates(
            np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        )
        pointer = self._faiss.swig_ptr
        self._index.search_preassigned_c(
            len(queries),
            pointer(queries),
            k,
            pointer(coarse.lists),
            pointer(coarse.scores),
            pointer(found.scores),
            pointer(found.ids),
            False,
            params,
        )
        return found


class CoarseQuantizer:
    """The centroids all shards share."""

    def __init__(self, trained: Path) -> None:
        self._faiss = load_faiss()
        index = _read(trained)
        self._ivf = index if isinstance(index, self._faiss.IndexIVF) else None
        self.nlist = int(self._ivf.nlist) if self._ivf is not None else 0

    def assign(self, queries: NDArray[np.float32], nprobe: int) -> Coarse | None:
        """The nprobe best lists of unit queries fp32 [Q, D]; None where there are no lists."""
        if self._ivf is None:
            return None
        self._faiss.omp_set_num_threads(1)
        quantizer, params = self._ivf.quantizer, None
        if isinstance(quantizer, self._faiss.IndexHNSW):
            depth = max(2 * nprobe, _LEAST_EF_SEARCH)
            params = self._faiss.SearchParametersHNSW(efSearch=depth)
        return Coarse(*quantizer.search(queries, nprobe, params=params))


def merge_candidates(found: list[Candidates]) -> Candidates:
    """The best of several shards' candidates [Q, k], in order."""
    if len(found) == 1:
        return found[0]
    scores = np.stack([part.scores for part in found])
    ids = np.stack([part.ids for part in found])
    return Candidates(*load_faiss().merge_knn_results(scores, ids, keep_max=True))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise IndexFolderError(f"{path}: missing")
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise IndexFolderError(f"{path}: damaged, faiss cannot read it") from error
    return index


def _require_rows(index: Any, num_rows: int, path: Path) -> None:
    stored = index.ntotal
    if isinstance(index, load_faiss().IndexIVF):
        lists = index.invlists
        sizes = sum(lists.list_size(number) for number in range(index.nlist))
        stored = sizes if index.ntotal == num_rows else index.ntotal
    if stored != num_rows:
        raise IndexFolderError(f"{path}: holds {stored} rows instead of {num_rows}")
