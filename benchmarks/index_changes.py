"""What changes cost and leave behind: deleted rows, a small update, opening.

Rows in files cost nothing to embed, so a build of them is no rebuild that anybody would be spared.
An update is compared with builds whose photos take 2 ms each: a thirtieth of what they take on
the CPU of docs/performance.md, about what they take on a small GPU.
"""

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
MODEL_SECONDS = 0.002


class Changes(NamedTuple):
    """Dead ids found, seconds of a build and of a 1 % update, opening over faiss's.

    `num_rows` were built, `num_changed` of them changed; seconds without a model's.
    """

    dead_found: int
    num_queries: int
    num_rows: int
    num_changed: int
    build_seconds: float
    update_seconds: float
    open_ratio: float

    def update_share(self, model_seconds: float) -> float:
        """The update's time over the build's, where a photo takes the model so long."""
        update = self.update_seconds + self.num_changed * model_seconds
        return update / (self.build_seconds + self.num_rows * model_seconds)


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
    num_changed = int(CHANGED_SHARE * len(left))
    for number in draw.choice(len(left), num_changed, replace=False):
        row = draw.standard_normal(views.rows.shape[1]).astype(np.float32)
        left[number].write_bytes((row / np.linalg.norm(row)).tobytes())
    update = timed(folder.build)
    return Changes(dead_found, num_queries, len(files), num_changed, build_seconds, update, opening)


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


def table(changes: Changes) -> str:
    """What was timed, with and without a model."""
    return (
        f"an update of {changes.num_changed} of {changes.num_rows} rows: "
        f"{changes.update_seconds:.1f} s; their build: {changes.build_seconds:.1f} s; "
        f"{changes.update_share(0):.3f} without a model"
    )


def targets(changes: Changes, *, full: bool) -> list[Target]:
    """No dead row; a small update is cheap beside a build that embeds, which FULL alone times."""
    not_here = None if full else "FULL only"
    return [
        Target(f"dead rows in {changes.num_queries} queries", changes.dead_found, "<=", 0),
        Target(
            f"update of 1 % / build, {MODEL_SECONDS * 1000:.0f} ms a photo",
            changes.update_share(MODEL_SECONDS),
            "<=",
            0.03,
            not_here,
        ),
        Target("opening / faiss.read_index", changes.open_ratio, "<=", 1.2, not_here),
    ]
