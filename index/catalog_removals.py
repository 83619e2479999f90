"""The part of the builder's journal that knows which contents were removed for good.

A removed content keeps its row and its photos' links, so that whoever brings the same bytes is
linked to a dead id and nothing is read or embedded again.
"""

import os
import posixpath
from collections.abc import Sequence

from sqlalchemy import func, insert, select

from index.catalog import collection, content, photo, tombstone
from index.catalog_generations import GenerationJournal
from index.errors import IndexFolderError

# A content that was added again has a new row: the old one's hash then ends in its id, here and
# in the table content, and stands for no bytes any more.
_GIVE_UP_HASH = "SET sha256 = CAST(sha256 || printf(' %d', id) AS BLOB) WHERE id = ?"
_FORGET = """
UPDATE photo SET content_id = NULL WHERE content_id = ? AND (deleted IS NOT NULL
    OR collection_id = (SELECT collection_id FROM collection WHERE root = ?))
"""
_RELINK = """
UPDATE photo SET content_id = successor.id
FROM tombstone JOIN content AS successor ON successor.sha256 = substr(tombstone.sha256, 1, 32)
WHERE length(tombstone.sha256) > 32 AND photo.content_id = tombstone.id AND photo.deleted IS NULL
"""


class RemovalJournal(GenerationJournal):
    """Removed contents: buried by id, found by path, given up for a new row when added again."""

    def ids_at(self, path: str) -> list[int]:
        """The contents whose live photo stands at a path, as the catalog names it or as a file."""
        file = os.path.abspath(path)  # noqa: PTH100 - links in the name stay as the user wrote them
        found = list[int]()
        with self._connection.begin():
            roots = self._connection.execute(select(collection.c.collection_id, collection.c.root))
            for number, root in roots.all():
                names = {path, file, os.path.relpath(file, posixpath.dirname(root))}
                chosen = select(photo.c.content_id).where(
                    photo.c.collection_id == number,
                    photo.c.path.in_(names),
                    photo.c.deleted.is_(None),
                    photo.c.content_id.is_not(None),
                )
                found += self._connection.execute(chosen).scalars()
        return sorted(set(found))

    def bury(self, ids: Sequence[int]) -> int:
        """Remove contents; gives how many were not removed before.

        Raises IndexFolderError, and removes none, when one of them was never there.
        """
        self._steps("commit removal")
        with self._connection.begin():
            num_new = 0
            for one in ids:
                row = self._connection.execute(
                    select(content.c.sha256).where(content.c.id == one)
                ).scalar_one_or_none()
                if row is None:
                    raise IndexFolderError(f"id {one}: no such photo in this index")
                write = insert(tombstone).prefix_with("OR IGNORE").values(sha256=row, id=one)
                num_new += self._connection.execute(write).rowcount
            if num_new:
                self._open_generation()
        self._steps("removal committed")
        return num_new

    def give_up(self, hashes: Sequence[bytes], *, root: str) -> None:
        """Let removed bytes be embedded again, under a new id.

        They are read from the collection with this root; photos of others follow their bytes.
        """
        self._steps("commit return")
        with self._connection.begin():
            chosen = select(tombstone.c.id).where(tombstone.c.sha256.in_(hashes))
            self._give_up(self._connection.execute(chosen).scalars().all(), root=root)
        self._steps("return committed")

    def _give_up(self, ids: Sequence[int], *, root: str) -> None:
        if not ids:
            return
        for table in ("tombstone", "content"):
            rows = [(one,) for one in ids]
            self._connection.exec_driver_sql(f"UPDATE {table} {_GIVE_UP_HASH}", rows)
        # A vanished file, should it come back, is read again and finds the new row.
        self._connection.exec_driver_sql(_FORGET, [(one, root) for one in ids])

    def num_unread(self) -> int:
        """How many live photos wait to be read for the first time, after a build was cut off."""
        waiting = (photo.c.content_id.is_(None), photo.c.error.is_(None), photo.c.deleted.is_(None))
        with self._connection.begin():
            chosen = select(func.count()).where(*waiting)
            return int(self._connection.execute(chosen).scalar_one())

    def _relink_returned(self) -> None:
        """Give the photos of a given-up row to the row their bytes have now."""
        self._connection.exec_driver_sql(_RELINK)
