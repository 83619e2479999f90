"""Connected components of pairs that come a block at a time.

Letters: n members, P pairs.
"""

import numpy as np
from numpy.typing import NDArray


class Components:
    """Members 0 .. n - 1, each at first alone; pairs join them."""

    def __init__(self, num_members: int) -> None:
        self._roots = np.arange(num_members)

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Join the members of each pair, int64 [P] and [P].

        The larger root is hung below the smaller one, all pairs at once, until every pair has
        one root.
        """
        while len(left):
            left, right = self._roots[left], self._roots[right]
            differ = left != right
            left, right = left[differ], right[differ]
            np.minimum.at(self._roots, np.maximum(left, right), np.minimum(left, right))
            self._flatten()

    def _flatten(self) -> None:
        while True:
            above = self._roots[self._roots]
            if np.array_equal(above, self._roots):
                return
            self._roots = above

    def groups(self) -> list[NDArray[np.int64]]:
        """Components of two members or more, each ascending, by their first member."""
        order = np.argsort(self._roots, kind="stable")
        ends = np.flatnonzero(np.diff(self._roots[order])) + 1
        return [part for part in np.split(order, ends) if len(part) > 1]
