"""The part of the builder's journal that knows photos: found by scans, waiting, or bad."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select, text

from index.catalog import collection, photo, photo_file, tombstone
from index.catalog_comparison import Comparison
from index.catalog_folding import FoldingJournal, root_id
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
from multigrain.locations import Url

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


class BadPhoto(NamedTuple):
    """A photo that failed: its collection's root, its path, its error."""

    root: str
    path: str
    error: str

    @property
    def file(self) -> Path | Url:
        """The file itself; added bytes were decoded before, so none lies in the index folder."""
        return photo_file(self.root, self.path, index=Path())


class Counts(NamedTuple):
    """Live photo files with a content, and quarantined ones."""

    photos: int
    quarantined: int


class PhotoJournal(FoldingJournal):
    """Photos of the collections: what scans found, what is still to be read, what failed."""

    def collection_id(self, root: str, *, created: str) -> int:
        """The number of the collection with this root, made where it is new."""
        with self._connection.begin():
            return root_id(self._connection, root, created=created)

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
            comparison = Comparison(self._connection, collection_id, page=_SCAN_BATCH)
            num_changed = 0
            changed = comparison.changed(found)
            while batch := list(islice(changed, _SCAN_BATCH)):
                num_changed += record(
                    self._connection, collection_id=collection_id, scan=scan, batch=batch
                )
            num_gone = comparison.mark_missing(scan)
            counts = ScanCounts(comparison.num_found, num_changed, num_gone)
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

    def num_pending(self, collection_ids: list[int], *, every: bool = False) -> int:
        """How many photos are still to be read; with `every`, all live ones count."""
        with self._connection.begin():
            chosen = select(func.count()).where(*_pending_rules(collection_ids, every=every))
            return int(self._connection.execute(chosen).scalar_one())

    def pending_sizes(self, collection_ids: list[int], *, every: bool = False) -> set[int]:
        """The sizes in bytes of the photos still to be read; with `every`, of all live ones."""
        with self._connection.begin():
            chosen = select(photo.c.size).where(*_pending_rules(collection_ids, every=every))
            return set(self._connection.execute(chosen.distinct()).scalars())

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
