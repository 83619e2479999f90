"""A build, stage by stage: scan, embed, train, encode, merge, tune, publish."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from index.backend import PUBLISHED_FOR, Backend
from index.catalog_scan import ScanCounts
from index.codebook.asked import kept_lines, to_record
from index.codebook.footprint import Expected, MemoryCheck
from index.codebook.memory import PeakMemory, Taken
from index.codebook.train import Codebook
from index.collection.reading import PhotoEmbedder
from index.collection.sources import Source, num_readers, open_source
from index.disk import full_disk_errors
from index.embed import EmbedReport
from index.embedding.blocks import AnyCrew
from index.encode import row_ranges
from index.errors import IndexFolderError
from index.expectation import asked_of, expectation
from index.faiss_module import load_faiss
from index.faiss_train import num_lists
from index.layout import Layout
from index.manifest import CalibrationPart, Manifest, SearchPart
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
from index.store import bytes_below
from index.workshop import Workshop, open_workshop
from multigrain.cpus import num_cpus
from multigrain.locations import Url

SHARD_ROWS = 1_000_000
TARGET_RECALL = 0.95


class BuildReport(NamedTuple):
    """What a build found and did; `generation` is the live one, new or not, None before any.

    `num_photos`, `num_rows`, `num_live`, `num_bad`, `num_bytes` and `calibration` are the index's;
    `scanned`, `num_renamed`, `embedded`, `seconds` of each stage and `memory` this build's.
    """

    generation: str | None
    is_new_generation: bool
    num_photos: int
    num_rows: int
    num_live: int
    num_bad: int
    factory: str | None
    search: SearchPart | None
    seconds: dict[str, float]
    num_bytes: int
    scanned: ScanCounts | None = None
    num_renamed: int = 0
    embedded: EmbedReport | None = None
    memory: MemoryCheck | None = None
    calibration: CalibrationPart | None = None

    @property
    def num_new(self) -> int:
        """Contents that were embedded."""
        return self.embedded.num_new if self.embedded else 0


class _Wanted(NamedTuple):
    """What the caller has set for all stages."""

    factory: str | None
    ram: int | None
    target_recall: float
    shard_rows: int
    decode_threads: int


def _say_nothing(_line: str) -> None:
    """Announce to nobody."""


def build_index(
    photos: Sequence[Path | Url],
    checkpoint: Path,
    out: Path,
    embedder: PhotoEmbedder,
    *,
    factory: str | None = None,
    ram: int | None = None,
    target_recall: float = TARGET_RECALL,
    shard_rows: int = SHARD_ROWS,
    decode_threads: int | None = None,
    verify_content: bool = False,
    allow_vanished: bool = False,
    rows_from: Sequence[Path] = (),
    first: Stage = Stage.SCAN,
    last: Stage = Stage.PUBLISH,
    steps: Steps = no_steps,
    announce: Callable[[str], None] = _say_nothing,
    crew: AnyCrew | None = None,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> BuildReport:
    """Bring the index folder `out` up to date with the photo collections; raises IndexFolderError.

    Killed at any point, a second call goes on behind the last durable row and gives the same
    ids, rows, codebook and shards. Only the stages from `first` to `last` are run. With
    `verify_content` every file is hashed, also where its stat says that it did not change. A
    collection whose photos are gone all at once is refused, unless `allow_vanished`. Photos whose
    bytes have rows in the indexes `rows_from` of the same checkpoint are not embedded. What the
    build expects to make is announced in a line before photos are embedded, which a `crew` of
    processes shares. Readers find the catalog in the database of the address `catalog`, or with
    sqlite in the folder's own file; without it where they found it before. A `backend` of milvus
    searches the rows there, one of faiss in the folder's lists; without a name as before.
    """
    times = StageTimes()
    load_faiss()
    if factory is not None:
        num_lists(factory, dim=embedder.dim)
    wanted = _Wanted(
        factory,
        ram,
        target_recall,
        shard_rows,
        decode_threads or num_readers(photos, num_cores=num_cpus()),
    )
    due = stages_between(first, last)
    sources = [open_source(path) for path in photos]
    with (
        full_disk_errors(Layout(Path(out).absolute()), checkpoint.stat().st_size) as need,
        open_workshop(
            out,
            checkpoint=checkpoint,
            embedder=embedder,
            steps=steps,
            catalog=catalog,
            backend=backend,
        ) as shop,
    ):
        mark = shop.journal.scan_mark()
        scanned = None
        if Stage.SCAN in due:
            with times.of(Stage.SCAN):
                scanned = scan_photos(shop, sources, allow_vanished=allow_vanished)
        expected = _expected(shop, sources if Stage.EMBED in due else [], wanted, announce)
        need.total += expected.disk if expected else 0
        if warning := need.warning():
            announce(warning)
        embedded = None
        if Stage.EMBED in due:
            with times.of(Stage.EMBED):
                embedded = embed_photos(
                    shop,
                    sources,
                    embedder,
                    shard_rows=shard_rows,
                    decode_threads=wanted.decode_threads,
                    verify_content=verify_content,
                    rows_from=rows_from,
                    crew=crew,
                )
        with PeakMemory() as memory:
            codebook, manifest = _indexed(
                shop, embedder, due, times, wanted=wanted, announce=announce
            )
        report = _report(shop, manifest, codebook, times)
        return report._replace(
            scanned=scanned,
            num_renamed=shop.journal.num_renamed(mark),
            embedded=embedded,
            memory=_check(embedded.memory if embedded else None, memory.taken, expected),
        )


def _indexed(
    shop: Workshop,
    embedder: PhotoEmbedder,
    due: Collection[Stage],
    times: StageTimes,
    *,
    wanted: _Wanted,
    announce: Callable[[str], None],
) -> tuple[Codebook | None, Manifest | None]:
    """Run the stages behind embedding that are due; gives the codebook and what was published."""
    codebook, manifest = None, None
    factory, ram = wanted.factory, wanted.ram
    if Stage.TRAIN in due:
        with times.of(Stage.TRAIN):
            codebook = train_codebook(shop, factory=factory, ram=ram)
    elif set(due) & {Stage.ENCODE, Stage.MERGE, Stage.TUNE, Stage.PUBLISH}:
        codebook = trained_codebook(shop, factory=factory, ram=ram)
    asked = asked_of(shop, factory=factory, ram=ram)
    is_given = factory is not None or ram is not None
    if codebook and not is_given:
        for line in kept_lines(shop.parent, asked, chosen=codebook.factory):
            announce(line)
    if Stage.ENCODE in due and codebook:
        with times.of(Stage.ENCODE):
            encode_shards(shop, codebook)
    if Stage.MERGE in due and codebook:
        with times.of(Stage.MERGE):
            merge_shards(shop, codebook, shard_rows=wanted.shard_rows)
    if Stage.TUNE in due and codebook:
        with times.of(Stage.TUNE):
            tune_search(shop, codebook, embedder, target=wanted.target_recall)
    if Stage.PUBLISH in due and codebook:
        with times.of(Stage.PUBLISH):
            manifest = publish_generation(shop, codebook, asked=to_record(shop.parent, asked))
    return codebook, manifest


def _expected(
    shop: Workshop,
    sources: Sequence[Source],
    wanted: _Wanted,
    announce: Callable[[str], None],
) -> Expected | None:
    """What the build expects; None where it may not fit the memory, which is only announced.

    Photos may turn out to be copies of each other, so the build goes on until its rows are known.
    """
    try:
        found = expectation(
            shop,
            sources,
            factory=wanted.factory,
            ram=wanted.ram,
            shard_rows=wanted.shard_rows,
            decode_threads=wanted.decode_threads,
        )
    except IndexFolderError as error:
        announce(f"unless many photos are copies or bad: {error}")
        return None
    announce(found.text())
    return found


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


def _report(
    shop: Workshop, manifest: Manifest | None, codebook: Codebook | None, times: StageTimes
) -> BuildReport:
    live, photos = manifest or shop.parent, shop.journal.counts()
    parent = shop.parent.generation if shop.parent else None
    return BuildReport(
        generation=live.generation if live else None,
        is_new_generation=manifest is not None and manifest.generation != parent,
        num_photos=photos.photos,
        num_rows=sum(part.n for part in row_ranges(shop.layout, shop.journal)),
        num_live=len(shop.journal.live_ids()),
        num_bad=photos.quarantined,
        factory=codebook.factory if codebook else None,
        search=live.search if live else None,
        seconds=times.seconds,
        num_bytes=bytes_below(shop.layout.folders),
        calibration=live.calibration if live else None,
    )
