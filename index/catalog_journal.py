"""The builder's journal: what was scanned, embedded and encoded, in few large transactions."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, func, insert, select, text, update

from index.catalog import (
    collection,
    content,
    photo,
    photo_file,
    tombstone,
)
from index.catalog_folding import FoldingJournal
from index.catalog_ids import live_ids
from index.catalog_scan import (
    IS_PRESENT,
    FoundPhoto,
    ScanCounts,
    ScanMark,
    last_mark,
    num_renamed,
    record_batch,
    record_first,
)
from index.staging import StagedShard

_SCAN_BATCH = 10_000
_PENDING_PAGE = 10_000
# These say something about the moment, not about the bytes, so they are tried on every build.
_TRANSIENT_ERRORS = ("photo_missing", "photo_unreadable")
_REMOVED = select(tombstone.c.id)


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
    taken_at: str | None
    camera: str | None


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
        """The file itself; added bytes were decoded before, so none lies in the index folder."""
        return photo_file(self.root, self.path, index=Path())


class ContentFiles(NamedTuple):
    """A content: id, sha256 and size of its bytes, and the files that hold them."""

    id: int
    sha256: bytes
    num_bytes: int
    files: list[Path]


class Counts(NamedTuple):
    """Live photo files with a content, and quarantined ones."""

    photos: int
    quarantined: int


class Journal(FoldingJournal):
    """`build.sqlite`, written by one thread; `content_id` may be asked by any."""

    def collection_id(self, root: str, *, created: str) -> int:
        """The number of the collection with this root, made where it is new."""
        with self._connection.begin():
            self._connection.execute(
                insert(collection).prefix_with("OR IGNORE").values(root=root, created=created)
            )
            chosen = select(collection.c.collection_id).where(collection.c.root == root)
            return int(self._connection.execute(chosen).scalar_one())

    def record_scan(
        self,
        collection_id: int,
        found: Iterable[FoundPhoto],
        *,
        accept: Callable[[int, int], None] | None = None,
    ) -> ScanCounts:
        """Record a collection's photos, in one transaction.

        `accept` is told how many could be opened before and how many can be now; when it
        raises, nothing is recorded.
        """
        self._steps("commit scan")
        with self._connection.begin():
            num_before = self._num_present(collection_id)
            scan = last_mark(self._connection).scan + 1
            record = record_batch if self._has_photos(collection_id) else record_first
            num_found = num_changed = 0
            remaining = iter(found)
            while batch := list(islice(remaining, _SCAN_BATCH)):
                num_changed += record(
                    self._connection, collection_id=collection_id, scan=scan, batch=batch
                )
                num_found += len(batch)
            counts = ScanCounts(num_found, num_changed, self._mark_missing(collection_id, scan))
            if accept:
                accept(num_before, self._num_present(collection_id))
            if counts.differs:
                self._open_generation()
        self._steps("scan committed")
        return counts

    def scan_mark(self) -> ScanMark:
        """Where the journal stands now; for `num_renamed` after a scan."""
        with self._connection.begin():
            return last_mark(self._connection)

    def num_renamed(self, mark: ScanMark) -> int:
        """How many photos vanished since the mark, whose bytes were found at new paths."""
        with self._connection.begin():
            return num_renamed(self._connection, mark)

    def _num_present(self, collection_id: int) -> int:
        in_collection = photo.c.collection_id == collection_id
        counted = select(func.count()).where(in_collection, photo.c.deleted.is_(None))
        return int(self._connection.execute(counted.where(text(IS_PRESENT))).scalar_one())

    def _has_photos(self, collection_id: int) -> bool:
        one = select(photo.c.photo_id).where(photo.c.collection_id == collection_id).limit(1)
        return self._connection.execute(one).first() is not None

    def _mark_missing(self, collection_id: int, scan: int) -> int:
        vanished = (
            update(photo)
            .where(photo.c.collection_id == collection_id, photo.c.seen != scan)
            .where(photo.c.deleted.is_(None))
            .values(deleted=scan)
        )
        return self._connection.execute(vanished).rowcount

    def num_pending(self, collection_ids: list[int], *, every: bool = False) -> int:
        """How many photos are still to be read; with `every`, all live ones count."""
        with self._connection.begin():
            chosen = select(func.count()).where(*_pending_rules(collection_ids, every=every))
            return int(self._connection.execute(chosen).scalar_one())

    def pending(self, collection_ids: list[int], *, every: bool = False) -> Iterator[PendingPhoto]:
        """The photos still to be read, in scan order; commits may happen in between.

        With `every`, all live ones: a build then notices what no stat shows.
        """
        after = (-1, "")
        while True:
            chosen = (
                select(photo.c.photo_id, photo.c.collection_id, photo.c.path, photo.c.error)
                .where(*_pending_rules(collection_ids, every=every))
                .where(text("(collection_id, path) > (:after_collection, :after_path)"))
                .order_by(photo.c.collection_id, photo.c.path)
                .limit(_PENDING_PAGE)
            )
            values = {"after_collection": after[0], "after_path": after[1]}
            with self._connection.begin():
                rows = self._connection.execute(chosen, values).all()
            page = [PendingPhoto(*row) for row in rows]
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

    def counts(self) -> Counts:
        """Live photo files, and quarantined ones, of every collection."""
        is_removed = photo.c.content_id.in_(_REMOVED)
        with self._connection.begin():
            chosen = select(
                func.count(photo.c.content_id) - func.count().filter(is_removed),
                func.count(photo.c.error),
            ).where(photo.c.deleted.is_(None))
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


def _pending_rules(collection_ids: list[int], *, every: bool) -> list[ColumnElement[bool]]:
    rules: list[ColumnElement[bool]] = [
        photo.c.collection_id.in_(collection_ids),
        photo.c.deleted.is_(None),
    ]
    if every:
        return rules
    retried = photo.c.error.is_(None) | photo.c.error.in_(_TRANSIENT_ERRORS)
    return [*rules, photo.c.content_id.is_(None), retried]
