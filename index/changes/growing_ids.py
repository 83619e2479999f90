"""Ids that come one after another, and what was there at a moment."""

from collections.abc import Collection, Iterator, Mapping, Sequence


class FirstIds(Collection[int]):
    """The first so many of a list of ids that only grows."""

    def __init__(self, ids: Sequence[int], places: Mapping[int, int], num: int) -> None:
        self._ids, self._places, self._num = ids, places, num

    def __contains__(self, content_id: object) -> bool:
        """Whether an id is among them."""
        place: int = self._places.get(content_id, self._num)  # type: ignore[call-overload]
        return place < self._num

    def __iter__(self) -> Iterator[int]:
        """The ids as they came."""
        return iter(self._ids[: self._num])

    def __len__(self) -> int:
        """How many there are."""
        return self._num

    def behind(self, num: int) -> list[int]:
        """Those that came behind the first so many."""
        return list(self._ids[num : self._num])


class GrowingIds:
    """Ids in the order they came, each once."""

    def __init__(self) -> None:
        self._ids = list[int]()
        self._places: dict[int, int] = {}

    def append(self, content_id: int) -> None:
        """Put an id behind the others, unless it is there."""
        if content_id not in self._places:
            self._places[content_id] = len(self._ids)
            self._ids.append(content_id)

    def now(self) -> FirstIds:
        """Those there are."""
        return FirstIds(self._ids, self._places, len(self._ids))
