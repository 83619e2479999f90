"""Which generation of the index answers, and which others are still being asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Generation(Protocol):
    """What can be asked until it is closed."""

    def close(self) -> None:
        """Let go of it; nobody asks it any more."""


G = TypeVar("G", bound=Generation)


class _Held(Generic[G]):
    """A generation, and by how many it is held."""

    def __init__(self, generation: G) -> None:
        self.generation = generation
        self.num_holders = 1  # the one that answers is held by Generations itself


class Generations(Generic[G]):
    """Holds the generation that answers; one that was replaced closes with its last lease.

    All methods may be called from any thread.
    """

    def __init__(self, first: G) -> None:
        self._lock = Lock()
        self._current = _Held(first)
        self._closed = False

    @contextmanager
    def lease(self) -> Iterator[G]:
        """Hold the generation that answers now: it stays open until the block ends."""
        with self._lock:
            held = self._current
            held.num_holders += 1
        try:
            yield held.generation
        finally:
            self._release(held)

    def swap(self, new: G) -> None:
        """Let `new` answer from now on; leases under way keep what they have.

        After `close` there is nothing to answer, and `new` is closed at once.
        """
        left = _Held(new)
        with self._lock:
            if not self._closed:
                left, self._current = self._current, left
        self._release(left)

    def close(self) -> None:
        """Close the one that answers, now or with its last lease; nothing may be asked after."""
        with self._lock:
            self._closed = True
        self._release(self._current)

    def _release(self, held: _Held[G]) -> None:
        with self._lock:
            held.num_holders -= 1
            is_last = held.num_holders == 0
        if is_last:
            held.generation.close()
