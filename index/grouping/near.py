"""Pairs of stored rows at least as near as a threshold, never all scores at once.

Letters: n rows, D embedding, P pairs.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from index.searching.scoring import Ranked

# 64 MiB of cosines at a time.
_BLOCK_ROWS = 4096
_SEARCHED_ROWS = 256
# Of a larger group the nearest are found, which are joined by their own nearest.
_NUM_NEIGHBOURS = 32
# A product of fp32 matrices and a sum in fp64 of the same two vectors differ by less.
_COSINE_ERROR = 1e-6

Units = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class Pairs(NamedTuple):
    """Places of two rows among the ids, int64 [P] and [P]."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]


def compared_pairs(ids: NDArray[np.int64], units: Units, threshold: float) -> Iterator[Pairs]:
    """Every pair of ids [n] whose cosine reaches the threshold, a block at a time.

    `units` gives unit rows fp32 [b, D]; rows are read once a block, so memory does not grow
    with n, but time does with its square.
    """
    least = np.float32(threshold - _COSINE_ERROR)
    values = np.empty(min(_BLOCK_ROWS, len(ids)) ** 2, np.float32)
    for top in range(0, len(ids), _BLOCK_ROWS):
        high = units(ids[top : top + _BLOCK_ROWS])
        for start in range(top, len(ids), _BLOCK_ROWS):
            low = high if start == top else units(ids[start : start + _BLOCK_ROWS])
            cosines = values[: len(high) * len(low)].reshape(len(high), len(low))
            # torch's product takes three quarters of the time of numpy's.
            torch.mm(*map(torch.from_numpy, (high, low.T)), out=torch.from_numpy(cosines))
            rows = np.flatnonzero(cosines.max(axis=1) >= least)
            left, right = np.nonzero(cosines[rows] >= least)
            left, right = top + rows[left], start + right
            once = left < right
            yield Pairs(left[once], right[once])


def searched_pairs(
    ids: NDArray[np.int64],
    units: Units,
    threshold: float,
    search: Callable[[NDArray[np.float32], int], list[Ranked]],
) -> Iterator[Pairs]:
    """The pairs among each row's 32 nearest as a search finds them: ids [n], ascending.

    What the search misses is missed, unless others join the same rows.
    """
    for start in range(0, len(ids), _SEARCHED_ROWS):
        found = search(units(ids[start : start + _SEARCHED_ROWS]), _NUM_NEIGHBOURS)
        near = [one.ids[one.scores >= threshold - _COSINE_ERROR] for one in found]
        left = np.repeat(np.arange(start, start + len(near)), [len(one) for one in near])
        right = np.searchsorted(ids, np.concatenate(near))
        yield Pairs(left, right)
