"""The part of the builder's journal that takes in what was added and deleted while serving."""

import json
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, func, insert, select

from index.catalog import UPLOADS_ROOT, collection, folded
from index.catalog_removals import RemovalJournal
from index.changes.record import Added, Change
from index.collection.sources import label_of
from index.staging import StagedShard

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
_KNOWN = "SELECT id FROM content WHERE sha256 = ?"
_BURY = "INSERT OR IGNORE INTO tombstone (sha256, id) VALUES (?, ?)"


class FoldingJournal(RemovalJournal):
    """Segments of adds and deletes, each taken in whole and once."""

    def folded(self) -> int:
        """The last segment that was taken in; 0: none."""
        with self._connection.begin():
            chosen = select(func.coalesce(func.max(folded.c.segment), 0))
            return int(self._connection.execute(chosen).scalar_one())

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

    def _take(self, change: Change, collection_id: int) -> None:
        digest = bytes.fromhex(change.sha256)
        known = self._connection.exec_driver_sql(_KNOWN, (digest,)).scalar()
        if known is not None:
            self._connection.exec_driver_sql(_BURY, (digest, known))
        if isinstance(change, Added):
            if known is not None:
                self._give_up([known], root=UPLOADS_ROOT)
            insert_added(self._connection, collection_id, [change])


def uploads_collection(connection: Connection, *, created: str) -> int:
    """The number of the collection of added bytes, made where it is new."""
    values = {"root": UPLOADS_ROOT, "created": created}
    connection.execute(insert(collection).prefix_with("OR IGNORE").values(values))
    chosen = select(collection.c.collection_id).where(collection.c.root == UPLOADS_ROOT)
    return int(connection.execute(chosen).scalar_one())


def insert_added(connection: Connection, collection_id: int, adds: Iterable[Added]) -> None:
    """Insert the contents and photos of adds; their ids and bytes must be new."""
    for one in adds:
        digest = bytes.fromhex(one.sha256)
        facts = (one.num_bytes, one.width, one.height, one.format, one.taken_at, one.camera)
        connection.exec_driver_sql(_CONTENT, (one.id, digest, *facts))
        attributes = json.dumps(one.metadata, sort_keys=True) if one.metadata else None
        label = label_of(one.metadata.get("label"))
        place = (collection_id, one.sha256, one.num_bytes)
        connection.exec_driver_sql(_PHOTO, (*place, one.id, attributes, label))
