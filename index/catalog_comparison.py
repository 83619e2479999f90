"""What a scan found beside what the journal knows, to pass over all that did not change.

Both come in the order of their paths, so that such photos cost neither a statement nor a write.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection

from index.catalog_scan import FoundPhoto

# In the order of their paths' bytes, as a scan finds them; a page is read whole, so that nothing
# is written under an open question.
_KNOWN = """
SELECT path, ino, size, mtime_ns, attributes, label, error, deleted, photo_id FROM photo
WHERE collection_id = ? AND path > ? ORDER BY path LIMIT ?
"""
_MISSING = "UPDATE photo SET deleted = ?1 WHERE photo_id = ?2 AND seen <> ?1"


class Comparison:
    """A scan beside what is known of its collection; `num_found` counts what came by."""

    def __init__(self, connection: Connection, collection_id: int, *, page: int) -> None:
        self.num_found = 0
        self._connection, self._collection_id, self._page = connection, collection_id, page
        self._passed = array("q")  # numbers of known photos that were not found in their place

    def changed(self, found: Iterable[FoundPhoto]) -> Iterator[FoundPhoto]:
        """The found photos that are new, differ, or do not come in the order of their paths."""
        rows = self._known()
        row = next(rows, None)
        for one in found:
            self.num_found += 1
            path = one[0]
            while row is not None and row[0] < path:
                self._pass(row)
                row = next(rows, None)
            if row is not None and row[0] == path:
                known, row = row, next(rows, None)
                if _is_same(known, one):
                    continue
            yield one
        while row is not None:
            self._pass(row)
            row = next(rows, None)

    def mark_missing(self, scan: int) -> int:
        """Mark the known photos that were not found; gives how many."""
        num_missing = 0
        for start in range(0, len(self._passed), self._page):
            rows = [(scan, number) for number in self._passed[start : start + self._page]]
            num_missing += self._connection.exec_driver_sql(_MISSING, rows).rowcount
        return num_missing

    def _pass(self, row: Any) -> None:
        if row[7] is None:
            self._passed.append(row[8])

    def _known(self) -> Iterator[Any]:
        after = ""
        while True:
            values = (self._collection_id, after, self._page)
            # The rows of the driver: SQLAlchemy's take as long to make as to read.
            cursor = self._connection.exec_driver_sql(_KNOWN, values).cursor
            page = cursor.fetchall() if cursor else []
            if not page:
                return
            yield from page
            after = page[-1][0]


def _is_same(row: Any, found: FoundPhoto) -> bool:
    """Whether a known photo is as it was: size, times, inode, and what a list says of it."""
    return bool(
        row[1:4] == found[2:5]
        and row[4:6] == found[6:8]
        and row[7] is None
        and (found[5] is None or row[6] == found[5])
    )
