"""The queue of requests: those somebody waits for, and behind them those that may wait."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """First come, first served, but for the background: it takes what places are left."""

    def __init__(self) -> None:
        self._front: deque[Item] = deque()
        self._background: deque[Item] = deque()

    def __len__(self) -> int:
        """How many wait in both lanes."""
        return len(self._front) + len(self._background)

    def __iter__(self) -> Iterator[Item]:
        """All that wait, in the order they would be taken."""
        return chain(self._front, self._background)

    def append(self, item: Item, *, background: bool) -> None:
        """Let an item wait at the end of its lane."""
        (self._background if background else self._front).append(item)

    def popleft(self) -> Item:
        """Take the next one; raises IndexError when none waits."""
        return (self._front or self._background).popleft()

    def first(self) -> Item:
        """The next one, which stays; raises IndexError when none waits."""
        return (self._front or self._background)[0]

    def discard(self, item: Item) -> None:
        """Take an item out, wherever it waits; nothing happens when it does not."""
        for lane in (self._front, self._background):
            if item in lane:
                lane.remove(item)

    def clear(self) -> None:
        """Let nobody wait."""
        self._front.clear()
        self._background.clear()
