"""The catalog beside sqlite3 itself: taking in a scan, and the paths of ten neighbours."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.report import Target
from index.catalog_journal import Journal
from index.catalog_opening import open_catalog_file
from index.catalog_scan import FoundPhoto
from index.steps import no_steps

ROUNDS = 5
NEIGHBOURS = 10
HYDRATIONS = 300
_TABLE = """
CREATE TABLE photo (photo_id INTEGER PRIMARY KEY, collection_id INTEGER, path TEXT, dev INTEGER,
  ino INTEGER, size INTEGER, mtime_ns INTEGER, error TEXT, seen INTEGER, attributes TEXT,
  label TEXT, UNIQUE (collection_id, path))
"""
_INSERT = (
    "INSERT INTO photo "
    "(collection_id, path, dev, ino, size, mtime_ns, error, attributes, label, seen) "
    "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, 1)"
)
_PRAGMAS = "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
_FETCH = (
    "SELECT content_id, path, attributes FROM photo "
    "WHERE deleted IS NULL AND content_id IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Ingest(NamedTuple):
    """Photos a second of each round, the same photos."""

    ours: list[float]
    plain: list[float]


def found_photos(num_photos: int) -> Iterator[FoundPhoto]:
    """What a scan of a new folder finds."""
    for number in range(num_photos):
        path = f"{number // 1000:05d}/IMG_{number:08d}.jpg"
        yield FoundPhoto(
            path, 1, number + 1, 2_000_000 + number, 1_600_000_000_000_000_000 + number
        )


def measure_ingest(folder: Path, num_photos: int) -> Ingest:
    """Take a scan into a new journal, and the same tuples into a table of sqlite3."""
    rates = Ingest([], [])
    for number in range(ROUNDS):
        rates.ours.append(num_photos / _scanned(folder / f"ours-{number}.sqlite", num_photos))
        rates.plain.append(num_photos / _inserted(folder / f"plain-{number}.sqlite", num_photos))
    return rates


def _scanned(path: Path, num_photos: int) -> float:
    journal = Journal(path, steps=no_steps)
    try:
        collection = journal.collection_id("/photos/", created="")
        start = time.perf_counter()
        journal.record_scan(collection, found_photos(num_photos))
        return time.perf_counter() - start
    finally:
        journal.close()


def _inserted(path: Path, num_photos: int) -> float:
    connection = sqlite3.connect(path)
    connection.executescript(_PRAGMAS)
    connection.execute(_TABLE)
    start = time.perf_counter()
    with connection:
        connection.executemany(_INSERT, found_photos(num_photos))
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


class Hydration(NamedTuple):
    """Milliseconds for ten neighbours."""

    ours: float
    plain: float


def measure_hydration(catalog: Path, num_rows: int) -> Hydration:
    """Paths and metadata of ten random contents, one connection; sqlite3 fetches their paths."""
    draw = np.random.default_rng(0)
    asked = [draw.choice(num_rows, NEIGHBOURS, replace=False).tolist() for _ in range(HYDRATIONS)]
    reader = open_catalog_file(catalog)
    plain = sqlite3.connect(f"file:{catalog}?mode=ro&immutable=1", uri=True)
    ours, theirs = list[float](), list[float]()
    for ids in asked:
        start = time.perf_counter()
        entries = reader.entries(ids)
        middle = time.perf_counter()
        rows = plain.execute(_FETCH, ids).fetchall()
        theirs.append(time.perf_counter() - middle)
        ours.append(middle - start)
        assert len(entries) == len(rows) == NEIGHBOURS
    reader.close()
    plain.close()
    return Hydration(1e3 * median(ours), 1e3 * median(theirs))


def targets(ingest: Ingest, hydration: Hydration) -> list[Target]:
    """Rates of a scan; time of ten neighbours."""
    ratio = median(a / b for a, b in zip(ingest.ours, ingest.plain, strict=True))
    return [
        Target("catalog: photos/s of a scan", median(ingest.ours), ">=", 50_000),
        Target("catalog: a scan / sqlite3 executemany", ratio, ">=", 0.8),
        Target("catalog: ms for ten neighbours", hydration.ours, "<=", 0.5),
        Target("catalog: ten neighbours / sqlite3", hydration.ours / hydration.plain, "<=", 4),
    ]
