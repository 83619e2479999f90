"""Exact cosines of candidates, from the stored rows.

Letters: Q queries, C candidates, D embedding.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.rows import Rows
from index.searching.half import widened

# 32 MiB of fp32 values at a time, however many candidates a query has.
_BLOCK_VALUES = 1 << 23


class Ranked(NamedTuple):
    """Neighbours of one query, best first: ids int64 [<= k], exact cosines fp32 [<= k]."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def part(self, places: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Ranked":
        """Some of them, in the order of the places."""
        return Ranked(self.ids[places], self.scores[places])


class Scored(NamedTuple):
    """Candidates of each query, best first, ties by id; then places that hold none.

    ids int64 [Q, C], cosines fp32 [Q, C] (-inf for none), how many there are int64 [Q].
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    num_found: NDArray[np.int64]

    def first(self, query: int, k: int) -> Ranked:
        """The best k of a query."""
        k = min(k, int(self.num_found[query]))
        return Ranked(self.ids[query, :k], self.scores[query, :k])


def score(rows: Rows, queries: NDArray[np.float32], ids: NDArray[np.int64]) -> Scored:
    """Rank candidates int64 [Q, C], -1 for none, of unit queries fp32 [Q, D]."""
    is_found = ids >= 0
    scores = np.full(ids.shape, -np.inf, np.float32)
    if is_found.any():
        # Where there is no candidate any row is read, and its cosine forgotten.
        _fill_cosines(scores, rows, queries, np.where(is_found, ids, ids.max()))
        scores[~is_found] = -np.inf
    order = np.lexsort((ids, -scores), axis=-1)
    return Scored(
        np.take_along_axis(ids, order, axis=-1),
        np.take_along_axis(scores, order, axis=-1),
        is_found.sum(axis=1),
    )


def _fill_cosines(
    scores: NDArray[np.float32],
    rows: Rows,
    queries: NDArray[np.float32],
    ids: NDArray[np.int64],
) -> None:
    """Cosines of ids [Q, C] into scores [Q, C], a block at a time."""
    wide = min(ids.shape[1], max(1, _BLOCK_VALUES // rows.dim))
    high = max(1, _BLOCK_VALUES // (wide * rows.dim))
    for top in range(0, ids.shape[0], high):
        for left in range(0, ids.shape[1], wide):
            block = np.s_[top : top + high, left : left + wide]
            scores[block] = _cosines(rows, queries[top : top + high], ids[block])


def _cosines(
    rows: Rows, queries: NDArray[np.float32], ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosines [Q, C] of rows with their queries; equal rows get equal ones.

    Row by row: a product of matrices adds up a row's values in an order that depends on where
    the row stands.
    """
    gathered = widened(rows.gather(ids.ravel())).reshape(*ids.shape, rows.dim)
    products = np.vecdot(gathered, queries[:, None, :])
    cosines: NDArray[np.float32] = products / np.sqrt(np.vecdot(gathered, gathered))
    return cosines.clip(-1.0, 1.0)
