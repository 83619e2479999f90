"""What changes cost and leave behind: deleted rows, a small update, opening."""

import time
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from benchmarks.index_data import Views
from benchmarks.index_folders import Folder, timed
from benchmarks.report import Target
from index.searcher import Searcher

DELETED_SHARE = 0.05
CHANGED_SHARE = 0.01
K = 10
BATCH = 256


class Changes(NamedTuple):
    """Dead ids found, the time of a 1 % update over a whole build's, opening over faiss's."""

    dead_found: int
    num_queries: int
    update_share: float
    open_ratio: float


def measure(folder: Folder, views: Views, *, build_seconds: float, num_queries: int) -> Changes:
    """Delete a share of the files and search; then change one in a hundred and build again."""
    opening = open_ratio(folder.root)
    files = sorted(folder.photos.iterdir())
    draw = np.random.default_rng(3)
    gone = draw.choice(len(files), int(DELETED_SHARE * len(files)), replace=False)
    for number in gone:
        files[number].unlink()
    folder.build()
    dead_found = _dead_found(folder, views, {f"{number:08d}" for number in gone}, num_queries)
    left = sorted(folder.photos.iterdir())
    for number in draw.choice(len(left), int(CHANGED_SHARE * len(left)), replace=False):
        row = draw.standard_normal(views.rows.shape[1]).astype(np.float32)
        left[number].write_bytes((row / np.linalg.norm(row)).tobytes())
    update = timed(folder.build)
    return Changes(dead_found, num_queries, update / build_seconds, opening)


def _dead_found(folder: Folder, views: Views, gone: set[str], num_queries: int) -> int:
    searcher = Searcher.open(folder.root)
    draw = np.random.default_rng(4)
    found = 0
    for _ in range(-(-num_queries // BATCH)):
        near = views.rows[draw.integers(0, len(views.rows), BATCH)]
        for hits in searcher.search(near, K):
            found += sum(Path(hit.uri).name in gone for hit in hits)
    searcher.close()
    return found


def open_ratio(root: Path) -> float:
    """The time of opening an index over that of reading its lists with faiss, the median."""
    lists = list((root / "shards").glob("*/ivf.faiss"))
    ratios = list[float]()
    for _ in range(5):
        start = time.perf_counter()
        Searcher.open(root).close()
        middle = time.perf_counter()
        for path in lists:
            faiss.read_index(str(path))
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return float(np.median(ratios))


def targets(changes: Changes, *, full: bool) -> list[Target]:
    """No dead row; a small update is cheap beside a build that embeds, which FULL alone times."""
    not_here = None if full else "FULL only"
    return [
        Target(f"dead rows in {changes.num_queries} queries", changes.dead_found, "<=", 0),
        Target("update of 1 % / build", changes.update_share, "<=", 0.03, not_here),
        Target("opening / faiss.read_index", changes.open_ratio, "<=", 1.2, not_here),
    ]
