"""What a scan would change, asked of a published catalog without writing anything."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from index.catalog_engine import open_catalog_engine
from index.catalog_scan import IS_PRESENT, FoundPhoto

_BATCH = 10_000
# A temporary table is no part of the file it is beside: SQLite keeps it elsewhere.
_TEMPORARY = """
CREATE TEMP TABLE found (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ino INTEGER
) WITHOUT ROWID
"""
_KNOWN = """
FROM photo JOIN collection AS c ON c.collection_id = photo.collection_id
LEFT JOIN temp.found AS f ON f.path = photo.path
WHERE c.root = ? AND photo.deleted IS NULL
"""
_SAME = "f.size = photo.size AND f.mtime_ns = photo.mtime_ns AND f.ino = photo.ino"
_COUNTS = f"""
SELECT count(f.path),
       count(CASE WHEN {_SAME} THEN 1 END),
       count(CASE WHEN f.path IS NULL AND photo.content_id IS NOT NULL THEN 1 END),
       count(CASE WHEN {IS_PRESENT} THEN 1 END)
{_KNOWN}
"""


class Difference(NamedTuple):
    """Photos of a collection: found, not known or changed since, and gone."""

    num_found: int
    num_new: int
    num_gone: int


class Comparison(NamedTuple):
    """A collection's difference, and how many of its photos could be opened before."""

    difference: Difference
    num_before: int


def compare(catalog: Path | None, root: str, found: Iterable[FoundPhoto]) -> Comparison:
    """Compare what a scan finds with a generation's catalog (None: there is none yet).

    Photos that cannot even be tried are left out. A changed photo is new and its old content
    counts as gone.
    """
    good = (photo for photo in found if photo.error is None)
    if catalog is None:
        num_found = sum(1 for _ in good)
        return Comparison(Difference(num_found, num_found, 0), 0)
    engine = open_catalog_engine(catalog)
    try:
        with engine.connect() as connection:
            num_found = _take(connection, good)
            counts = connection.exec_driver_sql(_COUNTS, (root,)).one()
            num_known, num_same, num_gone, num_before = (int(count) for count in counts)
            num_gone += num_known - num_same
            return Comparison(Difference(num_found, num_found - num_same, num_gone), num_before)
    finally:
        engine.dispose()


def _take(connection: Connection, found: Iterable[FoundPhoto]) -> int:
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.found")
    connection.exec_driver_sql(_TEMPORARY)
    remaining, num_found = iter(found), 0
    while batch := list(islice(remaining, _BATCH)):
        rows = [(one.path, one.size, one.mtime_ns, one.ino) for one in batch]
        connection.exec_driver_sql("INSERT OR IGNORE INTO temp.found VALUES (?, ?, ?, ?)", rows)
        num_found += len(rows)
    return num_found
