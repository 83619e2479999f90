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
        return self._content_id(sha256) if has_head(self._heads, sha256) else None

    @property
    def heads(self) -> NDArray[np.uint64]:
        """The heads of all committed hashes, ascending."""
        return np.asarray(self._heads)

    def add(self, hashes: Iterable[bytes]) -> None:
        """Take in contents that were just committed."""
        # Replaced, not changed: other threads may be reading the old array.
        self._heads = np.union1d(np.asarray(self._heads), _heads(hashes)).data


def has_head(heads: memoryview, sha256: bytes) -> bool:
    """Whether the head of a hash is among these, uint64 ascending."""
    # Not numpy's search: it lets go of the interpreter's lock, and waits to have it back.
    head = int.from_bytes(sha256[:_PREFIX_BYTES], "big")
    place = bisect_left(heads, head)
    return place < len(heads) and heads[place] == head


def _heads(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    # Not joined: that would hold an object for each of them at once.
    numbers = (int.from_bytes(one[:_PREFIX_BYTES], "big") for one in hashes)
    heads = np.fromiter(numbers, dtype=np.uint64)
    heads.sort()
    return heads
