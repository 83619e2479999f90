"""A million rows: the memory a build takes, and searches of one, four and sixteen shards.

The build runs in a process of its own, whose anonymous memory, with that of any process it
starts, is watched from here. The rows are looked up in a mapped file, as a model beside the build
would hold its own memory.
"""

import os
import shutil
import time
from concurrent.futures import Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.index_changes import open_ratio
from benchmarks.index_data import NumberEmbedder, synthetic_views, write_numbers
from benchmarks.index_folders import ranker_of
from benchmarks.index_search import Shards, measure_shards, shard_targets
from benchmarks.report import Target
from index.build_report import BuildReport
from index.builder import BuildOptions, build_index
from index.codebook.memory import anonymous_bytes
from index.layout import Layout
from index.manifest import SearchPart
from index.searcher import Searcher
from index.searching.ranker import Ranker
from index.stages import Stage

NUM_ROWS = 1_000_000
NUM_QUERIES = 1000
# Of a million rows on the table gives 16,384 lists, whose training takes an hour of a core.
FACTORY = "IVF4096,SQ8"
SHARD_COUNTS = (4, 16)
MOST_BYTES = 3 * 2**30
_LOOK_EVERY_SECONDS = 0.1


class Million(NamedTuple):
    """What a build reported, its seconds, and the most memory of its processes.

    `share` is the peak of its own process behind embedding over the plan's estimate, `opening` the
    time of opening over faiss's, `shards` what several shards give.
    """

    seconds: float
    stages: dict[str, float]
    peak: int
    share: float
    search: SearchPart
    opening: float
    shards: dict[int, Shards]


def measure(scratch: Path, num_rows: int = NUM_ROWS) -> Million:
    """Build one shard and watch it; then build several, and search them all."""
    collection = Collection(scratch, num_rows)
    measured = collection.measure()
    one = collection.ranker(1)
    for num_shards in SHARD_COUNTS:
        collection.split(num_shards)
        several = collection.ranker(num_shards)
        measured.shards[num_shards] = measure_shards(
            one, several, collection.views.queries, nprobe=measured.search.nprobe or 1
        )
    return measured


def table(measured: Million) -> str:
    """What is not a target."""
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in measured.stages.items())
    return f"{FACTORY}, {measured.seconds:.0f} s: {stages}"


def targets(measured: Million) -> list[Target]:
    """Memory, the plan's estimate of it, recall, and what several shards give."""
    gigabytes, recall = measured.peak / 2**30, measured.search.recall_lower or 0.0
    return [
        Target("a million rows: GiB of anonymous memory", gigabytes, "<=", MOST_BYTES / 2**30),
        Target("a million rows: memory behind embedding / planned", measured.share, "<=", 1.2),
        Target("a million rows: planned / memory behind embedding", 1 / measured.share, "<=", 1.2),
        Target("a million rows: recall, lower bound", recall, ">=", 0.95),
        Target("a million rows: opening / faiss.read_index", measured.opening, "<=", 1.2),
        *(one for num, shards in measured.shards.items() for one in shard_targets(shards, num)),
    ]


def build_million(
    photos: Path,
    rows: Path,
    out: Path,
    *,
    shard_rows: int,
    first: Stage = Stage.SCAN,
    last: Stage = Stage.PUBLISH,
) -> BuildReport:
    """Build in the calling process."""
    return build_index(
        [photos],
        rows.with_name("checkpoint"),
        out,
        NumberEmbedder(rows),
        BuildOptions(factory=FACTORY, shard_rows=shard_rows, first=first, last=last),
    )


class Collection:
    """A million files, the rows they stand for, and the indexes of them."""

    def __init__(self, scratch: Path, num_rows: int = NUM_ROWS) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.num_rows = num_rows
        self._scratch, self._rows = scratch, scratch / "rows.f32"
        self.views = synthetic_views(num_rows, num_queries=NUM_QUERIES, file=self._rows)
        (scratch / "checkpoint").write_bytes(b"rows stand in a file: there is no model")
        self._photos = write_numbers(scratch / "photos", num_rows)

    def measure(self) -> Million:
        """Build one shard in a process of its own, and watch it."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            child = pool.submit(os.getpid).result()
            start = time.perf_counter()
            build = pool.submit(
                build_million, self._photos, self._rows, self._root(1), shard_rows=self.num_rows
            )
            peak = watched(build, child)
            seconds, report = time.perf_counter() - start, build.result()
        assert report.memory is not None
        assert report.search is not None
        share = report.memory.peak / report.memory.expected
        opening = open_ratio(self._root(1))
        return Million(seconds, report.seconds, peak, share, report.search, opening, {})

    def split(self, num_shards: int) -> None:
        """Build the same rows in so many shards, with the first build's codebook."""
        whole, root = Layout(self._root(1)), Layout(self._root(num_shards))
        shutil.copytree(whole.codebooks, root.codebooks)
        build = partial(
            build_million,
            self._photos,
            self._rows,
            root.root,
            shard_rows=-(-self.num_rows // num_shards),
        )
        build(last=Stage.ENCODE)
        build(first=Stage.PUBLISH)  # without tuning

    def ranker(self, num_shards: int) -> Ranker:
        """The ranker of one of the indexes."""
        searcher = Searcher.open(self._root(num_shards))
        searcher.close()
        return ranker_of(Layout(self._root(num_shards)), searcher.manifest)

    def _root(self, num_shards: int) -> Path:
        return self._scratch / f"index-{num_shards}"


def watched(work: "Future[Any]", process: int) -> int:
    """The most anonymous memory of a process and of those it started, until the work is done."""
    most = 0
    while not work.done():
        most = max(most, sum(map(_memory, _family(process))))
        wait([work], timeout=_LOOK_EVERY_SECONDS)
    return most


def _memory(process: int) -> int:
    return anonymous_bytes(Path(f"/proc/{process}/status")) or 0


def _family(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [one for child in thread.read_text().split() for one in _family(int(child))]
        except OSError:  # it has ended since
            continue
    return found
