"""The builder's journal: what was scanned, embedded and encoded, in few large transactions."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, func, insert, select, text, update

from index.catalog import (
    collection,
    content,
    photo,
    photo_file,
)
from index.catalog_generations import GenerationJournal
from index.catalog_scan import FoundPhoto, record_batch
from index.staging import StagedShard

_SCAN_BATCH = 10_000
_PENDING_PAGE = 10_000
# These say something about the moment, not about the bytes, so they are tried on every build.
_TRANSIENT_ERRORS = ("photo_missing", "photo_unreadable")


class PendingPhoto(NamedTuple):
    """A photo still to be read, and the error it had when it was last tried."""

    photo_id: int
    collection_id: int
    path: str
    error: str | None


class NewContent(NamedTuple):
    """A row of the table content."""

    id: int
    sha256: bytes
    num_bytes: int
    width: int
    height: int
    format: str


class Outcome(NamedTuple):
    """What became of photos since the last commit: contents, (photo, content), (photo, error)."""

    contents: list[NewContent]
    links: list[tuple[int, int]]
    errors: list[tuple[int, str]]


class BadPhoto(NamedTuple):
    """A photo that failed: its collection's root, its path, its error."""

    root: str
    path: str
    error: str

    @property
    def file(self) -> Path:
        """The file itself."""
        return photo_file(self.root, self.path)


class Counts(NamedTuple):
    """Live photo files with a content, and quarantined ones."""

    photos: int
    quarantined: int


class Journal(GenerationJournal):
    """`build.sqlite`, written by one thread; `content_id` may be asked by any."""

    def collection_id(self, root: str, *, created: str) -> int:
        """The number of the collection with this root, made where it is new."""
        with self._connection.begin():
            self._connection.execute(
                insert(collection).prefix_with("OR IGNORE").values(root=root, created=created)
            )
            chosen = select(collection.c.collection_id).where(collection.c.root == root)
            return int(self._connection.execute(chosen).scalar_one())

    def record_scan(self, collection_id: int, found: Iterable[FoundPhoto]) -> int:
        """Record a collection's photos, in one transaction; gives how many differ from before."""
        self._steps("commit scan")
        with self._connection.begin():
            latest = select(func.coalesce(func.max(photo.c.seen), 0))
            scan = int(self._connection.execute(latest).scalar_one()) + 1
            num_changed = 0
            remaining = iter(found)
            while batch := list(islice(remaining, _SCAN_BATCH)):
                num_changed += record_batch(
                    self._connection, collection_id=collection_id, scan=scan, batch=batch
                )
            num_changed += self._mark_missing(collection_id, scan)
            if num_changed:
                self._open_generation()
        self._steps("scan committed")
        return num_changed

    def _mark_missing(self, collection_id: int, scan: int) -> int:
        vanished = (
            update(photo)
            .where(photo.c.collection_id == collection_id, photo.c.seen != scan)
            .where(photo.c.deleted.is_(None))
            .values(deleted=scan)
        )
        return self._connection.execute(vanished).rowcount

    def num_pending(self, collection_ids: list[int]) -> int:
        """How many photos are still to be read."""
        with self._connection.begin():
            chosen = select(func.count()).where(*_pending_rules(collection_ids))
            return int(self._connection.execute(chosen).scalar_one())

    def pending(self, collection_ids: list[int]) -> Iterator[PendingPhoto]:
        """The photos still to be read, in scan order; commits may happen in between."""
        after = (-1, "")
        while True:
            chosen = (
                select(photo.c.photo_id, photo.c.collection_id, photo.c.path, photo.c.error)
                .where(*_pending_rules(collection_ids))
                .where(text("(collection_id, path) > (:after_collection, :after_path)"))
                .order_by(photo.c.collection_id, photo.c.path)
                .limit(_PENDING_PAGE)
            )
            values = {"after_collection": after[0], "after_path": after[1]}
            with self._connection.begin():
                page = [PendingPhoto(*row) for row in self._connection.execute(chosen, values)]
            if not page:
                return
            yield from page
            after = (page[-1].collection_id, page[-1].path)

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

    def commit_outcome(self, outcome: Outcome, staged: list[StagedShard]) -> None:
        """Make rows durable: contents, photos and the staged row counts in one transaction."""
        if not any(outcome) and not staged:
            return
        self._steps("commit rows")
        self._synchronous("FULL")
        with self._connection.begin():
            self._write_outcome(outcome)
            self._many(
                "INSERT OR REPLACE INTO progress (staging, durable_rows) VALUES (?, ?)",
                [(part.name, part.num_rows) for part in staged],
            )
            self._open_generation()
        self._synchronous("NORMAL")
        self._steps("rows committed")

    def _synchronous(self, level: str) -> None:
        self._connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        self._connection.commit()

    def _write_outcome(self, outcome: Outcome) -> None:
        self._many("INSERT INTO content VALUES (?, ?, ?, ?, ?, ?)", outcome.contents)
        self._many(
            "UPDATE photo SET content_id = ?, error = NULL WHERE photo_id = ?",
            [(content_id, photo_id) for photo_id, content_id in outcome.links],
        )
        self._many(
            "UPDATE photo SET error = ? WHERE photo_id = ?",
            [(error, photo_id) for photo_id, error in outcome.errors],
        )

    def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        tuples = [tuple(row) for row in rows]
        if tuples:
            self._connection.exec_driver_sql(statement, tuples)

    def live_ids(self) -> NDArray[np.int64]:
        """The contents with at least one live photo, ascending."""
        with self._connection.begin():
            chosen = (
                select(photo.c.content_id)
                .distinct()
                .where(photo.c.deleted.is_(None), photo.c.content_id.is_not(None))
                .order_by(photo.c.content_id)
            )
            return np.array(self._connection.execute(chosen).scalars().all(), dtype=np.int64)

    def counts(self) -> Counts:
        """Live photo files, and quarantined ones, of every collection."""
        with self._connection.begin():
            chosen = select(func.count(photo.c.content_id), func.count(photo.c.error)).where(
                photo.c.deleted.is_(None)
            )
            return Counts(*self._connection.execute(chosen).one())

    def bad_photos(self) -> Iterator[BadPhoto]:
        """Every quarantined photo, in scan order."""
        with self._connection.begin():
            chosen = (
                select(collection.c.root, photo.c.path, photo.c.error)
                .join(collection, collection.c.collection_id == photo.c.collection_id)
                .where(photo.c.deleted.is_(None), photo.c.error.is_not(None))
                .order_by(photo.c.collection_id, photo.c.path)
            )
            for row in self._connection.execute(chosen):
                yield BadPhoto(*row)


def _pending_rules(collection_ids: list[int]) -> tuple[ColumnElement[bool], ...]:
    retried = photo.c.error.is_(None) | photo.c.error.in_(_TRANSIENT_ERRORS)
    return (
        photo.c.collection_id.in_(collection_ids),
        photo.c.content_id.is_(None),
        photo.c.deleted.is_(None),
        retried,
    )
