"""The part of the builder's journal that takes in what was added and deleted while serving."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from index.catalog import UPLOADS_ROOT, collection, folded, photo, segment
from index.catalog_removals import RemovalJournal
from index.changes.record import Added, Change, Linked
from index.collection.sources import label_of
from index.staging import StagedShard

_logger = logging.getLogger(__name__)
_CONTENT = """
INSERT INTO content (id, sha256, bytes, width, height, format, taken_at, camera)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# Bytes that were added, deleted and added again lie in the same file.
_PHOTO = """
INSERT INTO photo (collection_id, path, dev, ino, size, mtime_ns, content_id, seen, attributes,
    label)
VALUES (?, ?, 0, 0, ?, 0, ?, 0, ?, ?)
ON CONFLICT (collection_id, path) DO UPDATE SET content_id = excluded.content_id,
    deleted = NULL, error = NULL, attributes = excluded.attributes, label = excluded.label
"""
# Live bytes that were added again: whatever holds them has one more path.
_LINK = """
INSERT INTO photo (collection_id, path, dev, ino, size, mtime_ns, content_id, seen, attributes,
    label)
SELECT ?, ?, 0, 0, ?, 0, id, 0, ?, ? FROM content WHERE sha256 = ?
ON CONFLICT (collection_id, path) DO UPDATE SET content_id = excluded.content_id,
    deleted = NULL, error = NULL, attributes = excluded.attributes, label = excluded.label
"""
_KNOWN = "SELECT id FROM content WHERE sha256 = ?"
_REMOVED = """
SELECT photo.path FROM photo JOIN collection ON collection.collection_id = photo.collection_id
WHERE collection.root = ? AND photo.content_id IN (SELECT id FROM tombstone)
"""
_BURY = "INSERT OR IGNORE INTO tombstone (sha256, id) VALUES (?, ?)"


class FoldingJournal(RemovalJournal):
    """Segments of adds and deletes, each taken in whole and once."""

    def folded(self) -> int:
        """The last segment that was taken in; 0: none."""
        with self._connection.begin():
            chosen = select(func.coalesce(func.max(folded.c.segment), 0))
            return int(self._connection.execute(chosen).scalar_one())

    def begin_segment(self, number: int, *, first_id: int) -> None:
        """Remember where a segment's ids begin, before it is written."""
        values = {"number": number, "first_id": first_id}
        with self._connection.begin():
            self._connection.execute(insert(segment).prefix_with("OR REPLACE").values(values))

    def first_id_of_segment(self, number: int) -> int | None:
        """Where a segment's ids begin; None for one that was begun before this was remembered."""
        chosen = select(segment.c.first_id).where(segment.c.number == number)
        with self._connection.begin():
            found = self._connection.execute(chosen).scalar_one_or_none()
            return None if found is None else int(found)

    def fold(
        self, number: int, changes: Sequence[Change], staged: Sequence[StagedShard], *, created: str
    ) -> None:
        """Take in a segment whose rows are staged, in one transaction.

        Added bytes that have a row already take its photos over; the old id is dead.
        """
        self._steps("commit segment")
        self._synchronous("FULL")
        with self._connection.begin():
            collection_id = uploads_collection(self._connection, created=created)
            for change in changes:
                self._take(change, collection_id)
            self._relink_returned()
            self._stage(staged)
            self._connection.execute(insert(folded).values(segment=number))
            if changes:
                self._open_generation()
        self._synchronous("NORMAL")
        self._steps("segment committed")

    def take_up_segments(self, last: int) -> None:
        """Go on behind a segment that a published generation has taken in."""
        if last:
            with self._connection.begin():
                write = insert(folded).prefix_with("OR REPLACE").values(segment=last)
                self._connection.execute(write)

    def uploads_id(self, *, created: str) -> int:
        """The number of the collection of added bytes."""
        with self._connection.begin():
            return uploads_collection(self._connection, created=created)

    def forget_unread(self, collection_id: int) -> None:
        """Forget the photos of a collection that no content was found for."""
        unread = (photo.c.collection_id == collection_id, photo.c.content_id.is_(None))
        with self._connection.begin():
            self._connection.execute(delete(photo).where(*unread))

    def removed_uploads(self) -> set[str]:
        """The names of added bytes whose content was removed."""
        with self._connection.begin():
            return set(self._connection.exec_driver_sql(_REMOVED, (UPLOADS_ROOT,)).scalars())

    def _take(self, change: Change, collection_id: int) -> None:
        digest = bytes.fromhex(change.sha256)
        if isinstance(change, Linked):
            if not link_added(self._connection, collection_id, change):
                _logger.warning("uploads/%s: added again, but its row is lost", change.sha256)
            return
        known = self._connection.exec_driver_sql(_KNOWN, (digest,)).scalar()
        if known is not None:
            self._connection.exec_driver_sql(_BURY, (digest, known))
        if isinstance(change, Added):
            if known is not None:
                self._give_up([known], root=UPLOADS_ROOT)
            insert_added(self._connection, collection_id, [change])


def uploads_collection(connection: Connection, *, created: str) -> int:
    """The number of the collection of added bytes, made where it is new."""
    return root_id(connection, UPLOADS_ROOT, created=created)


def root_id(connection: Connection, root: str, *, created: str) -> int:
    """The number of the collection with a root, made where it is new."""
    values = {"root": root, "created": created}
    connection.execute(insert(collection).prefix_with("OR IGNORE").values(values))
    chosen = select(collection.c.collection_id).where(collection.c.root == root)
    return int(connection.execute(chosen).scalar_one())


def insert_added(connection: Connection, collection_id: int, adds: Iterable[Added]) -> None:
    """Insert the contents and photos of adds; their ids and bytes must be new."""
    for one in adds:
        digest = bytes.fromhex(one.sha256)
        facts = (one.num_bytes, one.width, one.height, one.format, one.taken_at, one.camera)
        connection.exec_driver_sql(_CONTENT, (one.id, digest, *facts))
        place = (collection_id, one.sha256, one.num_bytes)
        connection.exec_driver_sql(_PHOTO, (*place, one.id, *_stored(one.metadata)))


def link_added(connection: Connection, collection_id: int, link: Linked) -> bool:
    """Give the content with these bytes their path; False where there is none."""
    place = (collection_id, link.sha256, link.num_bytes)
    values = (*place, *_stored(link.metadata), bytes.fromhex(link.sha256))
    return connection.exec_driver_sql(_LINK, values).rowcount > 0


def _stored(metadata: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Attributes as the table photo has them: all as JSON, and the label."""
    attributes = json.dumps(metadata, sort_keys=True) if metadata else None
    return attributes, label_of(metadata.get("label"))
