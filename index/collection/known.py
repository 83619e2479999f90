"""Which bytes have a row already: asked for every photo, so answered without the database."""

from bisect import bisect_left
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

_PREFIX_BYTES = 8


class KnownContents:
    """Committed contents by the head of their hash, 8 bytes each; safe from any thread.

    Only a hash whose head is known is looked up in the journal, whose answer is the true one.
    """

    def __init__(self, hashes: Iterable[bytes], content_id: Callable[[bytes], int | None]) -> None:
        self._content_id = content_id
        self._heads = _heads(hashes).data

    def id_of(self, sha256: bytes) -> int | None:
        """The id of committed bytes."""
        # Not numpy's search: it lets go of the interpreter's lock, and waits to have it back.
        heads = self._heads
        head = int.from_bytes(sha256[:_PREFIX_BYTES], "big")
        place = bisect_left(heads, head)
        if place == len(heads) or heads[place] != head:
            return None
        return self._content_id(sha256)

    def add(self, hashes: Iterable[bytes]) -> None:
        """Take in contents that were just committed."""
        # Replaced, not changed: other threads may be reading the old array.
        self._heads = np.union1d(np.asarray(self._heads), _heads(hashes)).data


def _heads(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    # Not joined: that would hold an object for each of them at once.
    numbers = (int.from_bytes(one[:_PREFIX_BYTES], "big") for one in hashes)
    heads = np.fromiter(numbers, dtype=np.uint64)
    heads.sort()
    return heads
