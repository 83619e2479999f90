"""The rows of adds, in arrays that grow while others look at them.

Letters: n rows, D embedding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.searching.half import unit
from index.store import EMBEDDING_DTYPE, Rows16

_NEVER = np.iinfo(np.int64).max


class AddedRows(NamedTuple):
    """The rows of all adds, those deleted since included: ids int64 [n] ascending, fp16 [n, D].

    `scaled` are the same of unit length, fp32: every search reads them all. `ends` int64 [n] are
    the numbers of the changes that took them out.
    """

    ids: NDArray[np.int64]
    rows: Rows16
    scaled: NDArray[np.float32]
    ends: NDArray[np.int64]

    @property
    def dim(self) -> int:
        """The embedding's dimension D."""
        return int(self.rows.shape[1])

    def live_ids(self, num_changes: int) -> NDArray[np.int64]:
        """The ids that so many changes have left, ascending."""
        return self.ids[self.ends > num_changes]

    def gather(self, ids: NDArray[np.int64]) -> Rows16:
        """The rows of ids in their order."""
        gathered: Rows16 = self.rows[np.searchsorted(self.ids, ids)]
        return gathered

    def units(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of ascending ids scaled to unit length, fp32 [n, D]."""
        places = np.searchsorted(self.ids, ids)
        if len(places) and places[-1] - places[0] + 1 == len(places):
            return self.scaled[places[0] : places[-1] + 1]  # nothing is copied
        chosen: NDArray[np.float32] = self.scaled[places]
        return chosen


class RowBuffer:
    """Grows by doubling; rows already shown never move under whoever looks at them.

    A row taken out later is marked in the arrays of now. Whoever looks at those of before, or
    at fewer changes, finds it live either way.
    """

    def __init__(self, dim: int) -> None:
        self._num = 0
        self._all = AddedRows(
            np.empty(0, np.int64),
            np.empty((0, dim), EMBEDDING_DTYPE),
            np.empty((0, dim), np.float32),
            np.empty(0, np.int64),
        )

    def append(self, ids: Sequence[int], rows: Rows16) -> None:
        """Put rows fp16 [n, D] behind the others; their ids are larger."""
        end = self._num + len(ids)
        if end > len(self._all.ids):
            size = max(end, 2 * self._num)
            ids_now, rows_now, scaled, ends = self.now()
            self._all = AddedRows(
                _enlarged(ids_now, size),
                _enlarged(rows_now, size),
                _enlarged(scaled, size),
                _enlarged(ends, size),
            )
        new = slice(self._num, end)
        self._all.ids[new], self._all.rows[new] = ids, rows
        self._all.scaled[new], self._all.ends[new] = unit(rows), _NEVER
        self._num = end

    def take_out(self, content_id: int, *, change: int) -> None:
        """Mark a row as taken out by the change of this number."""
        self._all.ends[np.searchsorted(self._all.ids[: self._num], content_id)] = change

    def now(self) -> AddedRows:
        """The rows there are."""
        ids, rows, scaled, ends = self._all
        num = self._num
        return AddedRows(ids[:num], rows[:num], scaled[:num], ends[:num])


def _enlarged(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """A copy with room for `size` rows."""
    enlarged = np.empty((size, *rows.shape[1:]), rows.dtype)
    enlarged[: len(rows)] = rows
    return enlarged
