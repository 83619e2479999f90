"""A build, stage by stage: scan, embed, train, encode, publish."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from index.catalog_journal import Journal
from index.current import current_manifest, read_current
from index.embed import EmbedReport, embed_pending
from index.encode import encode_missing, row_ranges
from index.errors import IndexFolderError
from index.factory import factory_string
from index.faiss_module import load_faiss
from index.faiss_train import num_lists
from index.layout import Layout
from index.lock import builder_lock
from index.manifest import Manifest, ModelPart
from index.prepare import open_journal, take_checkpoint
from index.publish import publish, write_quarantine
from index.reading import PhotoEmbedder
from index.retire import retire
from index.rows import StoredRows
from index.sources import Source, open_source, scan
from index.steps import Steps, no_steps
from index.store import require_size
from index.train import Codebook, choose_codebook
from multigrain.cpus import num_cpus
from multigrain.progress import Progress

SHARD_ROWS = 1_000_000
_logger = logging.getLogger(__name__)
_WRITER = "multigrain index.build"


class BuildReport(NamedTuple):
    """What a build found and did; `generation` is the live one, new or not."""

    generation: str
    is_new_generation: bool
    num_photos: int
    num_rows: int
    num_live: int
    num_new: int
    num_bad: int
    factory: str
    seconds: float


def build_index(
    photos: Sequence[Path],
    checkpoint: Path,
    out: Path,
    embedder: PhotoEmbedder,
    *,
    factory: str | None = None,
    shard_rows: int = SHARD_ROWS,
    decode_threads: int | None = None,
    steps: Steps = no_steps,
) -> BuildReport:
    """Bring the index folder `out` up to date with the photo collections; raises IndexFolderError.

    Killed at any point, a second call goes on behind the last durable row and gives the same
    ids, rows, codebook and shards.
    """
    start = time.monotonic()
    load_faiss()
    if factory is not None:
        num_lists(factory, dim=embedder.dim)
    sources = [open_source(path) for path in photos]
    layout = Layout(Path(out).absolute())
    layout.create()
    with builder_lock(layout.lock):
        take_checkpoint(layout, checkpoint, fingerprint=embedder.fingerprint, steps=steps)
        with open_journal(layout, steps=steps) as journal:
            parent = current_manifest(layout)
            bases = _scan_all(layout, journal, sources)
            embedded = _embed_all(
                layout,
                journal,
                embedder,
                bases,
                shard_rows=shard_rows,
                decode_threads=decode_threads or num_cpus(),
                steps=steps,
            )
            manifest = _update(layout, journal, embedder, parent, factory=factory, steps=steps)
            write_quarantine(layout, journal, steps=steps)
    is_new = parent is None or manifest.generation != parent.generation
    return _report(manifest, embedded, is_new=is_new, seconds=time.monotonic() - start)


def _scan_all(layout: Layout, journal: Journal, sources: Sequence[Source]) -> dict[int, Path]:
    """Stage A; gives the folder each collection's paths start from."""
    bases = dict[int, Path]()
    for source in sources:
        number = journal.collection_id(source.root, created=_now())
        if number not in bases:
            journal.record_scan(number, scan(source, skip=layout.root))
            bases[number] = source.base
    return bases


def _embed_all(
    layout: Layout,
    journal: Journal,
    embedder: PhotoEmbedder,
    bases: dict[int, Path],
    *,
    shard_rows: int,
    decode_threads: int,
    steps: Steps,
) -> EmbedReport:
    """Stage B, with progress."""
    num_pending = journal.num_pending(list(bases))
    progress = Progress(num_pending, "photos")
    if num_pending:
        progress.update(0)
    try:
        return embed_pending(
            layout,
            journal,
            embedder,
            bases,
            shard_rows=shard_rows,
            decode_threads=decode_threads,
            progress=progress,
            steps=steps,
        )
    finally:
        progress.close()


def _update(
    layout: Layout,
    journal: Journal,
    embedder: PhotoEmbedder,
    parent: Manifest | None,
    *,
    factory: str | None,
    steps: Steps,
) -> Manifest:
    """Stages C, D and G; the parent generation itself where nothing differs from it."""
    live_ids, dim = journal.live_ids(), embedder.dim
    codebook = choose_codebook(
        layout,
        StoredRows(row_ranges(layout, journal), dim=dim),
        live_ids,
        factory=factory or factory_string(num_rows=len(live_ids), dim=dim),
        parent=parent,
        fingerprint=embedder.fingerprint,
        dim=dim,
        steps=steps,
    )
    encode_missing(
        layout,
        journal,
        codebook=codebook.name,
        fingerprint=embedder.fingerprint,
        dim=dim,
        steps=steps,
    )
    if parent and not _is_due(layout, journal, parent, codebook):
        return parent
    manifest = publish(
        layout,
        journal,
        live_ids,
        parent=parent,
        model=_model_part(embedder),
        codebook=codebook,
        created=_now(),
        writer=_WRITER,
        steps=steps,
    )
    retire(layout, manifest, steps=steps)
    return manifest


def _is_due(layout: Layout, journal: Journal, parent: Manifest, codebook: Codebook) -> bool:
    """Whether a new generation would differ from the live one."""
    has_changed = journal.open_generation() is not None or codebook.name != parent.codebook
    pointer = read_current(layout)
    is_live = pointer is not None and pointer.generation == parent.generation
    is_other = has_changed or codebook.factory != parent.factory or not is_live
    return is_other or not _has_files(layout, parent)


def _has_files(layout: Layout, parent: Manifest) -> bool:
    """Whether the live generation's own files are there; the journal can write them again."""
    try:
        for part in (parent.catalog, parent.tombstones):
            require_size(layout.root / part.file, part.size)
    except IndexFolderError as error:
        _logger.warning("generation %s is written anew: %s", parent.generation, error)
        return False
    return True


def _model_part(embedder: PhotoEmbedder) -> ModelPart:
    return ModelPart(
        fingerprint=embedder.fingerprint,
        D=embedder.dim,
        preprocessing=embedder.preprocessing.model_dump(mode="json"),
        engine=embedder.engine,
        precision=embedder.precision,
    )


def _report(
    manifest: Manifest, embedded: EmbedReport, *, is_new: bool, seconds: float
) -> BuildReport:
    counts = manifest.counts
    return BuildReport(
        generation=manifest.generation,
        is_new_generation=is_new,
        num_photos=counts.photos,
        num_rows=counts.rows,
        num_live=counts.live,
        num_new=embedded.num_new,
        num_bad=counts.quarantined,
        factory=manifest.factory,
        seconds=seconds,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
