"""What was added and deleted since a generation was built, as its searches see it.

Letters: n rows, D embedding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog import UPLOADS_ROOT
from index.catalog_reader import Content, Entry, StoredContent
from index.catalog_recent import matching
from index.changes.added_rows import AddedRows
from index.changes.growing_ids import FirstIds
from index.changes.record import Added, Linked
from index.collection.photo_file import read_same_bytes
from index.layout import Layout
from index.searching.where import Filter


class Since(NamedTuple):
    """What bytes are from a change on: added, or, with None, deleted."""

    change: int
    added: Added | None


class LinkedSince(NamedTuple):
    """What was said of live bytes by a change."""

    change: int
    link: Linked


class Recent:
    """The changes no generation holds yet, at one moment; never changed.

    All such moments share what only grows, so that one more costs the same however many changes
    there are. `hidden` are the generation's contents that are not to be found any more: deleted
    ones, and those whose bytes were added under another id. `linked` are those that have a path
    in uploads/ more, or other attributes there.
    """

    def __init__(
        self,
        layout: Layout,
        rows: AddedRows,
        *,
        hidden: FirstIds,
        linked: FirstIds,
        num_changes: int,
        added: Mapping[int, Added],
        by_hash: Mapping[str, Sequence[Since]],
        links: Mapping[int, Sequence[LinkedSince]],
    ) -> None:
        self.rows, self.hidden, self.linked = rows, hidden, linked
        self._layout, self._num_changes = layout, num_changes
        self._added, self._by_hash, self._links = added, by_hash, links

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The live adds, int64 [n], ascending."""
        return self.rows.live_ids(self._num_changes)

    def knows(self, sha256: str) -> bool:
        """Whether these bytes were added or deleted since the generation."""
        return self._since(sha256) is not None

    def id_of(self, sha256: str) -> int | None:
        """The id under which these bytes were added and are live."""
        since = self._since(sha256)
        return since.added.id if since and since.added else None

    def get(self, content_id: int) -> Added | None:
        """What was added under a live id."""
        added = self._added.get(content_id)
        since = self._since(added.sha256) if added else None
        now = since.added if since else None
        return now if now and now.id == content_id else None

    def entries(self, ids: Iterable[int], *, also_dead: bool = False) -> dict[int, Entry]:
        """The entries of live adds among these ids; `also_dead`: of those deleted since, too."""
        dead = self._added if also_dead else {}
        found = ((one, self.get(one) or dead.get(one)) for one in ids)
        return {one: self._entry(added) for one, added in found if added}

    def link(self, content_id: int) -> Linked | None:
        """What was said last of a content of the generation that was added again."""
        found = reversed(self._links.get(content_id, ()))
        return next((one.link for one in found if one.change <= self._num_changes), None)

    def relinked(self, content_id: int, entry: Entry) -> Entry:
        """The entry of a content of the generation, with what was said since."""
        link = self.link(content_id)
        if link is None:
            return entry
        place = (UPLOADS_ROOT, link.sha256)
        places = entry.places if place in entry.places else (*entry.places, place)
        metadata = link.metadata if places[0] == place else entry.metadata
        paths = list(dict.fromkeys(path for _, path in places))
        return entry._replace(places=places, metadata={**metadata, "paths": paths})

    def contents(self, ids: Iterable[int]) -> list[Content]:
        """What is known of live adds among these ids, by id."""
        return [self._content(one) for one in self._live(sorted({*ids}))]

    def matching(
        self, filters: Sequence[Filter], linked: Mapping[int, StoredContent]
    ) -> NDArray[np.int64]:
        """The live adds, and those of these linked contents, that meet every filter.

        Ids int64 [n], ascending.
        """
        if not filters or not (len(self.ids) or linked):
            return self.ids
        links = ((stored, self.link(one)) for one, stored in linked.items())
        pairs = ((stored, link) for stored, link in links if link)
        return matching(self._live(self.ids.tolist()), pairs, filters)

    def read_photo(self, content_id: int) -> bytes | None:
        """The bytes of an add; None where the file does not hold them any more."""
        return self.read_upload(self._added[content_id])

    def read_upload(self, added: Added | Linked) -> bytes | None:
        """The bytes of uploads/; None where the file does not hold them any more."""
        paths = [self._layout.upload(added.sha256)]
        return read_same_bytes(paths, bytes.fromhex(added.sha256), num_bytes=added.num_bytes)

    def _since(self, sha256: str) -> Since | None:
        """What became of these bytes last; changes of later moments stand behind it."""
        found = reversed(self._by_hash.get(sha256, ()))
        return next((one for one in found if one.change <= self._num_changes), None)

    def _live(self, ids: Iterable[int]) -> Iterator[Added]:
        return (added for added in map(self.get, ids) if added)

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
