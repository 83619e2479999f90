"""What was added and deleted since a generation was built, as its searches see it.

Letters: n rows, D embedding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog import UPLOADS_ROOT
from index.catalog_reader import Content, Entry
from index.catalog_recent import matching
from index.changes.record import Added, Change
from index.collection.photo_file import read_same_bytes
from index.layout import Layout
from index.searching.half import unit
from index.searching.where import Filter
from index.store import EMBEDDING_DTYPE, Rows16


class AddedRows(NamedTuple):
    """The rows of all adds, those deleted since included: ids int64 [n] ascending, fp16 [n, D].

    `scaled` are the same of unit length, fp32: every search reads them all.
    """

    ids: NDArray[np.int64]
    rows: Rows16
    scaled: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """The embedding's dimension D."""
        return int(self.rows.shape[1])

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


class _Buffer:
    """Grows by doubling; rows already shown never move under whoever looks at them."""

    def __init__(self, dim: int) -> None:
        self._ids, self._rows = np.empty(0, np.int64), np.empty((0, dim), EMBEDDING_DTYPE)
        self._scaled = np.empty((0, dim), np.float32)
        self._num = 0

    def append(self, ids: Sequence[int], rows: Rows16) -> AddedRows:
        end = self._num + len(ids)
        if end > len(self._ids):
            size = max(end, 2 * self._num)
            self._ids = _enlarged(self._ids[: self._num], size)
            self._rows = _enlarged(self._rows[: self._num], size)
            self._scaled = _enlarged(self._scaled[: self._num], size)
        self._ids[self._num : end], self._rows[self._num : end] = ids, rows
        self._scaled[self._num : end] = unit(rows)
        self._num = end
        return AddedRows(self._ids[:end], self._rows[:end], self._scaled[:end])


def _enlarged(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """A copy with room for `size` rows."""
    enlarged = np.empty((size, *rows.shape[1:]), rows.dtype)
    enlarged[: len(rows)] = rows
    return enlarged


class Recent:
    """The changes no generation holds yet, at one moment; never changed.

    `ids` int64 [n] are the live adds, ascending; `hidden` the generation's contents that are
    not to be found any more: deleted ones, and those whose bytes were added under another id.
    """

    def __init__(
        self,
        layout: Layout,
        rows: AddedRows,
        added: Mapping[int, Added],
        by_hash: Mapping[str, Added | None],
        hidden: frozenset[int],
    ) -> None:
        self.rows, self.hidden = rows, hidden
        self._layout, self._added, self._by_hash = layout, added, by_hash
        self._live = {one.id: one for one in by_hash.values() if one is not None}
        self.ids = np.array(sorted(self._live), np.int64)

    @property
    def num_deleted(self) -> int:
        """How many contents were deleted and not added again."""
        return sum(one is None for one in self._by_hash.values())

    def knows(self, sha256: str) -> bool:
        """Whether these bytes were added or deleted since the generation."""
        return sha256 in self._by_hash

    def id_of(self, sha256: str) -> int | None:
        """The id under which these bytes were added and are live."""
        added = self._by_hash.get(sha256)
        return added.id if added else None

    def get(self, content_id: int) -> Added | None:
        """What was added under a live id."""
        return self._live.get(content_id)

    def entries(self, ids: Iterable[int], *, also_dead: bool = False) -> dict[int, Entry]:
        """The entries of live adds among these ids; `also_dead`: of those deleted since, too."""
        known = self._added if also_dead else self._live
        return {one: self._entry(known[one]) for one in ids if one in known}

    def contents(self, ids: Iterable[int]) -> list[Content]:
        """What is known of live adds among these ids, by id."""
        return [self._content(self._live[one]) for one in sorted({*ids} & self._live.keys())]

    def matching(self, filters: Sequence[Filter]) -> NDArray[np.int64]:
        """The live adds that meet every filter: ids int64 [n], ascending."""
        return matching(self._live.values(), filters) if self._live and filters else self.ids

    def read_photo(self, content_id: int) -> bytes | None:
        """The bytes of a live add; None where the file does not hold them any more."""
        added = self._live[content_id]
        paths = [self._layout.upload(added.sha256)]
        return read_same_bytes(paths, bytes.fromhex(added.sha256), num_bytes=added.num_bytes)

    def _entry(self, added: Added) -> Entry:
        metadata = {**added.metadata, "paths": [added.sha256]}
        places = ((UPLOADS_ROOT, added.sha256),)
        return Entry(added.sha256, places, metadata, self._layout.root.absolute())

    def _content(self, added: Added) -> Content:
        entry = self._entry(added)
        return Content(
            added.id,
            entry.uri,
            entry.metadata,
            sha256=added.sha256,
            bytes=added.num_bytes,
            width=added.width,
            height=added.height,
            format=added.format,
            taken_at=added.taken_at,
            camera=added.camera,
        )


class RecentChanges:
    """Takes changes in, one after another, and gives what they come to."""

    def __init__(
        self, layout: Layout, *, dim: int, ids_of: Callable[[list[bytes]], dict[bytes, int]]
    ) -> None:
        self._layout, self._ids_of = layout, ids_of
        self._buffer = _Buffer(dim)
        none = np.empty((0, dim), EMBEDDING_DTYPE)
        self._rows = self._buffer.append([], none)
        self._added: dict[int, Added] = {}
        self._by_hash: dict[str, Added | None] = {}
        self._hidden = frozenset[int]()

    def take(self, changes: Sequence[Change], rows: Rows16) -> None:
        """Take in changes and the rows of the adds among them, fp16 [n, D]."""
        adds = {one.id: one for one in changes if isinstance(one, Added)}
        self._rows = self._buffer.append(list(adds), rows)
        self._added |= adds
        self._by_hash |= {one.sha256: one if isinstance(one, Added) else None for one in changes}
        hashes = [bytes.fromhex(one.sha256) for one in changes]
        self._hidden |= frozenset(self._ids_of(hashes).values())

    def now(self) -> Recent:
        """What all changes so far come to."""
        by_hash = dict(self._by_hash)
        return Recent(self._layout, self._rows, self._added, by_hash, self._hidden)
