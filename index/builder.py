"""A build, stage by stage: scan, embed, train, encode, merge, tune, publish."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from index.backend import PUBLISHED_FOR, Backend
from index.build_report import BuildReport, report_of
from index.catalog_scan import ScanCounts
from index.codebook.asked import kept_lines, to_record
from index.codebook.footprint import Expected, MemoryCheck
from index.codebook.memory import PeakMemory, Taken
from index.codebook.train import Codebook
from index.collection.reading import PhotoEmbedder
from index.collection.sources import Source, num_readers, open_source
from index.disk import DiskNeed, full_disk_errors
from index.embed import EmbedReport
from index.embedding.blocks import AnyCrew
from index.errors import IndexFolderError
from index.expectation import asked_of, expectation
from index.faiss_module import load_faiss
from index.faiss_train import num_lists
from index.layout import Layout
from index.manifest import Manifest
from index.merge import merge_shards
from index.stage_times import StageTimes
from index.stages import (
    Stage,
    embed_photos,
    encode_shards,
    publish_generation,
    scan_photos,
    stages_between,
    train_codebook,
    trained_codebook,
    tune_search,
)
from index.steps import Steps, no_steps
from index.workshop import Workshop, open_workshop
from multigrain.cpus import num_cpus
from multigrain.locations import Url

SHARD_ROWS = 1_000_000
TARGET_RECALL = 0.95
_CODEBOOK_USERS = frozenset({Stage.ENCODE, Stage.MERGE, Stage.TUNE, Stage.PUBLISH})


def _say_nothing(_line: str) -> None:
    """Announce to nobody."""


class BuildOptions(NamedTuple):
    """How a build is done.

    Only the stages from `first` to `last` are run. With `verify_content` every file is hashed,
    also where its stat says that it did not change. A collection whose photos are gone all at
    once is refused, unless `allow_vanished`. Photos whose bytes have rows in the indexes
    `rows_from` of the same checkpoint are not embedded. What the build expects to make is
    announced in a line before photos are embedded, which a `crew` of processes shares. Readers
    find the catalog in the database of the address `catalog`, or with sqlite in the folder's own
    file; without it where they found it before. A `backend` of milvus searches the rows there,
    one of faiss in the folder's lists; without a name as before.
    """

    factory: str | None = None
    ram: int | None = None
    target_recall: float = TARGET_RECALL
    shard_rows: int = SHARD_ROWS
    decode_threads: int | None = None
    verify_content: bool = False
    allow_vanished: bool = False
    rows_from: Sequence[Path] = ()
    first: Stage = Stage.SCAN
    last: Stage = Stage.PUBLISH
    steps: Steps = no_steps
    announce: Callable[[str], None] = _say_nothing
    crew: AnyCrew | None = None
    catalog: SecretStr | None = None
    backend: Backend = PUBLISHED_FOR


def build_index(
    photos: Sequence[Path | Url],
    checkpoint: Path,
    out: Path,
    embedder: PhotoEmbedder,
    options: BuildOptions = BuildOptions(),  # noqa: B008 - it cannot change
) -> BuildReport:
    """Bring the index folder `out` up to date with the photo collections; raises IndexFolderError.

    Killed at any point, a second call goes on behind the last durable row and gives the same
    ids, rows, codebook and shards.
    """
    load_faiss()
    if options.factory is not None:
        num_lists(options.factory, dim=embedder.dim)
    due = stages_between(options.first, options.last)
    sources = [open_source(path) for path in photos]
    num_threads = options.decode_threads or num_readers(photos, num_cores=num_cpus())
    with (
        full_disk_errors(Layout(Path(out).absolute()), checkpoint.stat().st_size) as need,
        open_workshop(
            out,
            checkpoint=checkpoint,
            embedder=embedder,
            steps=options.steps,
            catalog=options.catalog,
            backend=options.backend,
        ) as shop,
    ):
        build = _Build(shop, sources, embedder, options, due, num_threads, StageTimes())
        return build.run(need)


class _Build(NamedTuple):
    """The stages that are due, over an open folder."""

    shop: Workshop
    sources: Sequence[Source]
    embedder: PhotoEmbedder
    options: BuildOptions
    due: Collection[Stage]
    num_threads: int
    times: StageTimes

    def run(self, need: DiskNeed) -> BuildReport:
        """Run them, having said what they will need."""
        mark = self.shop.journal.scan_mark()
        scanned = self._scan()
        expected = self._expect()
        need.total += expected.disk if expected else 0
        if warning := need.warning():
            self.options.announce(warning)
        embedded = self._embed()
        with PeakMemory() as memory:
            codebook = self._train()
            manifest = self._index(codebook) if codebook else None
        report = report_of(self.shop, manifest, codebook, seconds=self.times.seconds)
        return report._replace(
            scanned=scanned,
            num_renamed=self.shop.journal.num_renamed(mark),
            embedded=embedded,
            memory=_check(embedded.memory if embedded else None, memory.taken, expected),
        )

    def _scan(self) -> ScanCounts | None:
        if Stage.SCAN not in self.due:
            return None
        with self.times.of(Stage.SCAN):
            return scan_photos(self.shop, self.sources, allow_vanished=self.options.allow_vanished)

    def _expect(self) -> Expected | None:
        """What the build expects; None where it may not fit the memory, which is only announced.

        Photos may turn out to be copies of each other, so it goes on until its rows are known.
        """
        options = self.options
        try:
            found = expectation(
                self.shop,
                self.sources if Stage.EMBED in self.due else [],
                factory=options.factory,
                ram=options.ram,
                shard_rows=options.shard_rows,
                decode_threads=self.num_threads,
            )
        except IndexFolderError as error:
            options.announce(f"unless many photos are copies or bad: {error}")
            return None
        options.announce(found.text())
        return found

    def _embed(self) -> EmbedReport | None:
        if Stage.EMBED not in self.due:
            return None
        with self.times.of(Stage.EMBED):
            return embed_photos(
                self.shop,
                self.sources,
                self.embedder,
                shard_rows=self.options.shard_rows,
                decode_threads=self.num_threads,
                verify_content=self.options.verify_content,
                rows_from=self.options.rows_from,
                crew=self.options.crew,
            )

    def _train(self) -> Codebook | None:
        """The codebook, trained or found, where a stage needs one."""
        factory, ram = self.options.factory, self.options.ram
        if Stage.TRAIN in self.due:
            with self.times.of(Stage.TRAIN):
                return train_codebook(self.shop, factory=factory, ram=ram)
        if _CODEBOOK_USERS.isdisjoint(self.due):
            return None
        return trained_codebook(self.shop, factory=factory, ram=ram)

    def _index(self, codebook: Codebook) -> Manifest | None:
        """The stages behind training; gives what was published."""
        shop, options, times = self.shop, self.options, self.times
        asked = asked_of(shop, factory=options.factory, ram=options.ram)
        if options.factory is None and options.ram is None:
            for line in kept_lines(shop.parent, asked, chosen=codebook.factory):
                options.announce(line)
        if Stage.ENCODE in self.due:
            with times.of(Stage.ENCODE):
                encode_shards(shop, codebook)
        if Stage.MERGE in self.due:
            with times.of(Stage.MERGE):
                merge_shards(shop, codebook, shard_rows=options.shard_rows)
        if Stage.TUNE in self.due:
            with times.of(Stage.TUNE):
                tune_search(shop, codebook, self.embedder, target=options.target_recall)
        if Stage.PUBLISH not in self.due:
            return None
        with times.of(Stage.PUBLISH):
            return publish_generation(shop, codebook, asked=to_record(shop.parent, asked))


def _check(
    embedding: Taken | None, building: Taken | None, expected: Expected | None
) -> MemoryCheck | None:
    """What was taken against what was expected; None where the system or the plan is silent."""
    if building is None or expected is None:
        return None
    most, peak = building.start + expected.building, building.peak
    if embedding is not None:
        most = max(most, embedding.start + expected.embedding)
        peak = max(peak, embedding.peak)
    return MemoryCheck(most, peak)
