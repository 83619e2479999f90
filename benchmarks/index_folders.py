"""Index folders of synthetic rows, built by `build_index`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import FileEmbedder, write_rows
from index.build_report import BuildReport
from index.builder import BuildOptions, build_index
from index.codebook.footprint import footprint
from index.layout import Layout
from index.manifest import Manifest
from index.searcher import Searcher
from index.searching.ranker import Ranker
from index.stages import Stage
from index.store import unpack_live


class Folder(NamedTuple):
    """Files that stand for rows, and the index of them."""

    photos: Path
    root: Path
    checkpoint: Path

    @classmethod
    def within(cls, scratch: Path) -> Self:
        """The files and the index below a folder."""
        return cls(scratch / "photos", scratch / "index", scratch / "checkpoint")

    def build(
        self,
        *,
        first: Stage = Stage.SCAN,
        last: Stage = Stage.PUBLISH,
        shard_rows: int = 1_000_000,
    ) -> BuildReport:
        """Run the stages of a build over the files."""
        return build_index(
            [self.photos],
            self.checkpoint,
            self.root,
            FileEmbedder(),
            BuildOptions(first=first, last=last, shard_rows=shard_rows),
        )

    def manifest(self) -> Manifest:
        """The live generation's manifest."""
        searcher = Searcher.open(self.root)
        searcher.close()
        return searcher.manifest

    def lists_bytes(self) -> tuple[int, int, int]:
        """Bytes of the lists' files, those that `--plan` tells, and how many rows they hold."""
        manifest, layout = self.manifest(), Layout(self.root)
        found = sum(layout.lists(part.folder).stat().st_size for part in manifest.shards)
        num_rows = sum(part.num_codes for part in manifest.shards)
        dim, num_shards = manifest.model.D, len(manifest.shards)
        plan = footprint(manifest.factory, num_rows=num_rows, dim=dim, num_shards=num_shards)
        return found, plan.lists, num_rows

    def ranker(self) -> Ranker:
        """The live generation's ranker, without its catalog."""
        return ranker_of(Layout(self.root), self.manifest())


def ranker_of(layout: Layout, manifest: Manifest) -> Ranker:
    """A generation's ranker."""
    bitmap = np.fromfile(layout.root / manifest.tombstones.file, dtype=np.uint8)
    return Ranker(
        layout,
        codebook=manifest.codebook,
        shards=manifest.shards,
        live=unpack_live(bitmap, num_ids=manifest.counts.next_id),
        dim=manifest.model.D,
    )


def folder_of(scratch: Path, rows: NDArray[np.float32], *, order: NDArray[np.int64]) -> Folder:
    """Files of rows in an order, to be built from."""
    folder = Folder.within(scratch)
    write_rows(folder.photos, rows, order=order)
    folder.checkpoint.write_bytes(b"rows stand in files: there is no model")
    return folder


def timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
