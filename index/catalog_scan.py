"""What a scan found, written down beside what the journal knows, ten thousand photos at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

_TEMPORARY = """
CREATE TEMP TABLE IF NOT EXISTS scanned (
    path TEXT PRIMARY KEY, dev INTEGER, ino INTEGER, size INTEGER, mtime_ns INTEGER,
    error TEXT, attributes TEXT, label TEXT
) WITHOUT ROWID
"""
_INSERT = "INSERT OR IGNORE INTO scanned VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
# Nothing about the photo changed, though it was not found where its path sorts: names that are
# not UTF-8 are spelled out.
_UNCHANGED = """
UPDATE photo SET seen = ?, dev = s.dev FROM scanned AS s
WHERE photo.collection_id = ? AND photo.path = s.path AND photo.size = s.size
  AND photo.mtime_ns = s.mtime_ns AND photo.ino = s.ino
  AND photo.deleted IS NULL AND photo.attributes IS s.attributes
  AND photo.label IS s.label
  AND (s.error IS NULL OR photo.error IS s.error)
"""
# A collection without a photo has nothing to compare with.
_FIRST = """
INSERT OR IGNORE INTO photo
    (path, dev, ino, size, mtime_ns, error, attributes, label, collection_id, seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A file with the same stat keeps its content; any other is read again.
_CHANGED = """
INSERT INTO photo (collection_id, path, dev, ino, size, mtime_ns, error, seen, attributes, label)
SELECT ?1, s.path, s.dev, s.ino, s.size, s.mtime_ns, s.error, ?2, s.attributes, s.label
FROM scanned AS s
LEFT JOIN photo AS known ON known.collection_id = ?1 AND known.path = s.path
WHERE known.photo_id IS NULL OR known.seen <> ?2
ORDER BY s.path
ON CONFLICT (collection_id, path) DO UPDATE SET
    content_id = CASE WHEN excluded.error IS NULL AND photo.size = excluded.size
                       AND photo.mtime_ns = excluded.mtime_ns AND photo.ino = excluded.ino
                      THEN photo.content_id END,
    error = CASE WHEN excluded.error IS NULL AND photo.size = excluded.size
                  AND photo.mtime_ns = excluded.mtime_ns AND photo.ino = excluded.ino
                 THEN photo.error ELSE excluded.error END,
    dev = excluded.dev, ino = excluded.ino, size = excluded.size, mtime_ns = excluded.mtime_ns,
    seen = excluded.seen, deleted = NULL, attributes = excluded.attributes,
    label = excluded.label
"""
# Photos that could be opened, whatever their bytes turned out to be.
IS_PRESENT = """
(photo.error IS NULL OR photo.error NOT IN
    ('photo_missing', 'photo_unreadable', 'folder_unreadable', 'not_a_file'))
"""

# A photo whose bytes stand at a path that no scan had seen before.
_NUM_RENAMED = """
SELECT count(*) FROM photo WHERE deleted > ?1 AND content_id IN
    (SELECT content_id FROM photo WHERE deleted IS NULL AND photo_id > ?2)
"""


class ScanCounts(NamedTuple):
    """Photos a scan found, how many of them are new or differ, and how many are gone."""

    found: int
    changed: int
    gone: int

    @property
    def differs(self) -> bool:
        """Whether anything is not as it was."""
        return bool(self.changed or self.gone)


class ScanMark(NamedTuple):
    """The last scan and the last photo's number at a moment."""

    scan: int
    photo_id: int


class FoundPhoto(NamedTuple):
    """A photo file as a scan sees it; `error` when it cannot even be tried.

    `path` is relative to its collection, `attributes` a JSON object as text, `label` its class.
    """

    path: str
    dev: int
    ino: int
    size: int
    mtime_ns: int
    error: str | None = None
    attributes: str | None = None
    label: str | None = None


def record_first(
    connection: Connection, *, collection_id: int, scan: int, batch: Sequence[FoundPhoto]
) -> int:
    """Record photos of a collection that had none; gives how many are in the batch."""
    rows = [(*found, collection_id, scan) for found in batch]
    connection.exec_driver_sql(_FIRST, rows)
    return len(rows)


def record_batch(
    connection: Connection, *, collection_id: int, scan: int, batch: Sequence[FoundPhoto]
) -> int:
    """Bring the table photo up to what was found; gives how many photos differ from before."""
    connection.exec_driver_sql(_TEMPORARY)
    connection.exec_driver_sql("DELETE FROM scanned")
    connection.exec_driver_sql(_INSERT, [tuple(found) for found in batch])
    connection.exec_driver_sql(_UNCHANGED, (scan, collection_id))
    return connection.exec_driver_sql(_CHANGED, (collection_id, scan)).rowcount


def last_mark(connection: Connection) -> ScanMark:
    """Where the journal stands before a scan."""
    latest = (
        "SELECT max(coalesce(max(seen), 0), coalesce(max(deleted), 0)), "
        "coalesce(max(photo_id), 0) FROM photo"
    )
    return ScanMark(*map(int, connection.exec_driver_sql(latest).one()))


def num_renamed(connection: Connection, mark: ScanMark) -> int:
    """How many photos vanished since, whose bytes were found at new paths."""
    return int(connection.exec_driver_sql(_NUM_RENAMED, tuple(mark)).scalar_one())
