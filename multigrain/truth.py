"""Which gallery rows answer which query.

Q queries, B of a block, N gallery rows, T right pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

_BLOCK = 1024  # queries whose pairs are made at once


class Truth(NamedTuple):
    """Gallery rows, for each query: the right answers, and those that do not count.

    A row that is both does not count. Arrays may be shared between queries.
    """

    relevant: Sequence[Rows]
    junk: Sequence[Rows]

    def part(self, own: range) -> "Truth":
        """The truth of some of the queries."""
        return Truth(self.relevant[own.start : own.stop], self.junk[own.start : own.stop])

    def num_positives(self) -> list[int]:
        """How many right answers count, for each query."""
        counts = list[int]()
        for start in range(0, len(self.relevant), _BLOCK):
            own = self.part(range(start, start + _BLOCK))
            counts += np.bincount(own.pairs()[0], minlength=len(own.relevant)).tolist()
        return counts

    def junk_pairs(self) -> Rows:
        """The pairs [2, J] of (query, gallery row) that do not count."""
        return _pairs(self.junk)

    def pairs(self) -> Rows:
        """The pairs [2, T] of (query, gallery row) that are right and count, sorted."""
        right, junk = _pairs(self.relevant), _pairs(self.junk)
        num_rows = 1 + max((int(rows[1].max()) for rows in (right, junk) if rows.size), default=0)
        keys, hidden = (np.sort(row[0] * num_rows + row[1], kind="stable") for row in (right, junk))
        counts = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        # Not np.setdiff1d, whose hashing takes many times as long as sorting what is nearly sorted.
        counts &= np.searchsorted(hidden, keys) == np.searchsorted(hidden, keys, side="right")
        return np.stack(np.divmod(keys[counts], num_rows))


def _pairs(rows: Sequence[Rows]) -> Rows:
    """Pairs [2, T] of (query, row)."""
    flat = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64)
    return np.stack([np.repeat(np.arange(len(rows)), [len(own) for own in rows]), flat])
