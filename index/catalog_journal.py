"""The builder's journal: contents and their rows, in few large transactions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from index.catalog import collection, content, photo, photo_file
from index.catalog_ids import live_ids
from index.catalog_photos import PhotoJournal
from index.staging import StagedShard
from multigrain.locations import Url


class NewContent(NamedTuple):
    """A row of the table content."""

    id: int
    sha256: bytes
    num_bytes: int
    width: int
    height: int
    format: str
    taken_at: str | None
    camera: str | None


class Outcome(NamedTuple):
    """What became of photos since the last commit: contents, (photo, content), (photo, error)."""

    contents: list[NewContent]
    links: list[tuple[int, int]]
    errors: list[tuple[int, str]]


class ContentFiles(NamedTuple):
    """A content: id, sha256 and size of its bytes, and the files that hold them."""

    id: int
    sha256: bytes
    num_bytes: int
    files: list[Path | Url]


class Journal(PhotoJournal):
    """`build.sqlite`, written by one thread; `content_id` may be asked by any."""

    def content_id(self, sha256: bytes) -> int | None:
        """The id of committed bytes; safe from any thread."""
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT id FROM content WHERE sha256 = ?", (sha256,)
            ).scalar_one_or_none()
        return None if found is None else int(found)

    def hashes(self) -> Iterator[bytes]:
        """The sha256 of every committed content."""
        with self._connection.begin():
            yield from self._connection.execute(select(content.c.sha256)).scalars()

    def content_files(self, first_id: int, end: int) -> list[ContentFiles]:
        """The contents with ids first_id .. end - 1, and the live photos that hold their bytes."""
        chosen = (
            select(content.c.id, content.c.sha256, content.c.bytes, collection.c.root, photo.c.path)
            .outerjoin(photo, (photo.c.content_id == content.c.id) & photo.c.deleted.is_(None))
            .outerjoin(collection, collection.c.collection_id == photo.c.collection_id)
            .where(content.c.id.between(first_id, end - 1))
            .order_by(content.c.id, photo.c.collection_id, photo.c.path)
        )
        found = dict[int, ContentFiles]()
        with self._connection.begin():
            for number, digest, size, root, path in self._connection.execute(chosen):
                one = found.setdefault(number, ContentFiles(number, digest, size, []))
                if path is not None:
                    one.files.append(photo_file(root, path, index=self._root))
        return list(found.values())

    def commit_outcome(self, outcome: Outcome, staged: list[StagedShard]) -> None:
        """Make rows durable: contents, photos and the staged row counts in one transaction."""
        if not any(outcome) and not staged:
            return
        self._steps("commit rows")
        self._synchronous("FULL")
        with self._connection.begin():
            has_changed = self._write_outcome(outcome)
            self._stage(staged)
            if has_changed:
                self._open_generation()
        self._synchronous("NORMAL")
        self._steps("rows committed")

    def _write_outcome(self, outcome: Outcome) -> bool:
        """Whether anything differs from before: a photo read again mostly does not."""
        num_changed = self._many(
            "INSERT INTO content (id, sha256, bytes, width, height, format, taken_at, camera)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            outcome.contents,
        )
        if outcome.contents:
            self._relink_returned()
        num_changed += self._many(
            "UPDATE photo SET content_id = ?1, error = NULL WHERE photo_id = ?2"
            " AND (content_id IS NOT ?1 OR error IS NOT NULL)",
            [(content_id, photo_id) for photo_id, content_id in outcome.links],
        )
        num_changed += self._many(
            "UPDATE photo SET error = ?, content_id = NULL WHERE photo_id = ?",
            [(error, photo_id) for photo_id, error in outcome.errors],
        )
        return num_changed > 0

    def _many(self, statement: str, rows: list[Any]) -> int:
        """Run a statement for each row; gives how many rows of the table it touched."""
        return self._connection.exec_driver_sql(statement, rows).rowcount if rows else 0

    def live_ids(self) -> NDArray[np.int64]:
        """The contents with at least one live photo that were not removed, ascending."""
        with self._connection.begin():
            return live_ids(self._connection)
