"""The stages of a build, each callable alone: it looks at what is there and does what is missing.

A stage run twice does nothing the second time; one that lacks what an earlier stage makes says so.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.catalog_scan import ScanCounts
from index.changes.folding import take_changes
from index.changes.uploads import remove_uploads
from index.codebook.balance import warn_of_imbalance
from index.codebook.factory import is_exact
from index.codebook.train import Codebook, cut_files, find_codebook, train_live
from index.collection.reading import PhotoEmbedder
from index.collection.sources import Source, scan
from index.collection.vanished import require_present
from index.embed import EmbedReport, embed_pending
from index.embedding.blocks import AnyCrew
from index.encode import encode_missing, require_encoded, row_ranges
from index.errors import IndexFolderError
from index.expectation import factory_of
from index.manifest import AskedPart, CalibrationPart, Manifest
from index.publish import is_due, publish, shard_parts
from index.quarantine import write_quarantine
from index.retire import retire
from index.rows import StoredRows
from index.rows_from import OtherRows
from index.searching.ranker import Ranker
from index.store import pack_live, unpack_live
from index.tuning.held_out import journal_queries
from index.tuning.tune import tune
from index.tuning.tuned import forget_tuned, is_tuning_due, last_tuned, write_tuned
from index.upkeep.restore import restage_lists, restore_rows
from index.workshop import Workshop
from multigrain.cpus import num_cpus
from multigrain.locations import Url
from multigrain.progress import Progress

_WRITER = "multigrain index.build"


class Stage(StrEnum):
    """The stages in their order."""

    SCAN = "scan"
    EMBED = "embed"
    TRAIN = "train"
    ENCODE = "encode"
    MERGE = "merge"
    TUNE = "tune"
    PUBLISH = "publish"


def stages_between(first: Stage, last: Stage) -> frozenset[Stage]:
    """The stages from first to last, both included; raises IndexFolderError when there is none."""
    order = list(Stage)
    chosen = frozenset(order[order.index(first) : order.index(last) + 1])
    if not chosen:
        raise IndexFolderError(f"stage {first} comes after {last}: no stage lies between them")
    return chosen


def scan_photos(
    shop: Workshop, sources: Sequence[Source], *, allow_vanished: bool = False
) -> ScanCounts:
    """Stage A: record what stands in the collections now, and count it.

    Raises IndexFolderError for a collection whose photos are gone all at once, as on a disk that
    is not mounted, and records nothing of it; not with `allow_vanished`.
    """
    scanned = dict[int, ScanCounts]()
    for source in sources:
        number = shop.journal.collection_id(source.root, created=shop.started)
        if number not in scanned:
            found = scan(source, skip=shop.layout.root)
            accept = None if allow_vanished else partial(require_present, source.root)
            scanned[number] = shop.journal.record_scan(number, found, accept=accept)
    totals = zip(ScanCounts(0, 0, 0), *scanned.values(), strict=True)
    return ScanCounts(*map(sum, totals))


def embed_photos(
    shop: Workshop,
    sources: Sequence[Source],
    embedder: PhotoEmbedder,
    *,
    shard_rows: int,
    decode_threads: int,
    verify_content: bool = False,
    rows_from: Sequence[Path] = (),
    crew: AnyCrew | None = None,
) -> EmbedReport:
    """Stage B: embed the scanned photos that have no row yet, and list those that are bad.

    What was added and deleted while the index was served is taken in too, and so are the rows
    that the indexes `rows_from` have of the same bytes.
    With `verify_content` the others are read too, and embedded when their bytes are new; a `crew`
    of processes shares the work.
    """
    bases = dict[int, Path | Url]()
    for source in sources:
        number = shop.journal.collection_id(source.root, created=shop.started)
        bases.setdefault(number, source.base)
    restore_rows(shop, embedder, decode_threads=decode_threads)
    num_ids = num_pending = shop.journal.num_pending(list(bases), every=verify_content)
    others = None
    if rows_from:
        sizes = shop.journal.pending_sizes(list(bases), every=verify_content)
        others = OtherRows(shop, rows_from, sizes)
        num_ids += others.count()
    take_changes(shop, embedder, num_ids=num_ids, shard_rows=shard_rows)
    if others:
        others.take(shard_rows=shard_rows)
    progress = Progress(num_pending, "photos")
    if num_pending:
        progress.update(0)
    try:
        report = embed_pending(
            shop.layout,
            shop.journal,
            embedder,
            bases,
            shard_rows=shard_rows,
            decode_threads=decode_threads,
            verify_content=verify_content,
            progress=progress,
            steps=shop.steps,
            crew=crew,
        )
    finally:
        progress.close()
    if num_pending and shop.journal.open_generation():
        # What came meanwhile; the ids kept for copies and bad photos are free again.
        take_changes(shop, embedder, num_ids=0, shard_rows=shard_rows)
    bad = write_quarantine(shop.layout, shop.journal, steps=shop.steps)
    return report._replace(bad=bad)


def codebook_of(shop: Workshop, *, factory: str | None, ram: int | None = None) -> Codebook | None:
    """The codebook the live rows are to be encoded with; None where it is not trained yet."""
    live_ids = shop.journal.live_ids()
    chosen = factory_of(shop, factory=factory, ram=ram, num_live=len(live_ids))
    return _found_codebook(shop, live_ids, chosen)


def _found_codebook(shop: Workshop, live_ids: NDArray[np.int64], factory: str) -> Codebook | None:
    return find_codebook(
        shop.layout,
        live_ids,
        factory=factory,
        parent=shop.parent,
        fingerprint=shop.model.fingerprint,
    )


def train_codebook(shop: Workshop, *, factory: str | None, ram: int | None = None) -> Codebook:
    """Stage C: a codebook for the live rows, where the folder has none that fits."""
    live_ids, dim = shop.journal.live_ids(), shop.model.D
    chosen = factory_of(shop, factory=factory, ram=ram, num_live=len(live_ids))
    found = _found_codebook(shop, live_ids, chosen)
    if found is not None:
        return found
    if shop.parent:
        # Only a file that is not there is taken from a new folder of the same name.
        for path in cut_files(shop.layout, shop.parent):
            path.unlink(missing_ok=True)
    return train_live(
        shop.layout,
        StoredRows(row_ranges(shop.layout, shop.journal), dim=dim),
        live_ids,
        factory=chosen,
        fingerprint=shop.model.fingerprint,
        dim=dim,
        steps=shop.steps,
        device=shop.device,
        faiss_device=shop.faiss_device,
    )


def trained_codebook(shop: Workshop, *, factory: str | None, ram: int | None = None) -> Codebook:
    """The codebook stage C made; raises IndexFolderError where it was not run."""
    found = codebook_of(shop, factory=factory, ram=ram)
    if found is None:
        raise IndexFolderError(f"{shop.layout.root}: no codebook is trained; run the stage train")
    return found


def encode_shards(shop: Workshop, codebook: Codebook) -> None:
    """Stage D: lists of this codebook for every row."""
    restage_lists(shop)
    encode_missing(
        shop.layout,
        shop.journal,
        codebook=codebook.name,
        fingerprint=shop.model.fingerprint,
        dim=shop.model.D,
        steps=shop.steps,
        device=shop.device,
        faiss_device=shop.faiss_device,
    )


def tune_search(
    shop: Workshop, codebook: Codebook, embedder: PhotoEmbedder, *, target: float
) -> None:
    """Stage F: measure searches of edited photos, where too much differs from the last time."""
    require_encoded(shop.layout, shop.journal, codebook=codebook.name)
    live_ids, next_id = shop.journal.live_ids(), shop.journal.next_id()
    last = last_tuned(shop.layout, shop.parent, codebook)
    if is_exact(codebook.factory) or not is_tuning_due(last, live_ids, target=target):
        return
    ranker = Ranker(
        shop.layout,
        codebook=codebook.name,
        shards=shard_parts(shop.layout, shop.journal),
        live=unpack_live(pack_live(live_ids, num_ids=next_id), num_ids=next_id),
        dim=shop.model.D,
        mapped=True,  # a build's memory must not grow with its rows
    )
    queries = journal_queries(shop.layout, shop.journal, embedder, live_ids)
    search = tune(ranker, queries, target=target, num_threads=num_cpus())
    rows = {"tuned_live": len(live_ids), "tuned_next_id": next_id}
    write_tuned(shop.layout, codebook, search.model_copy(update=rows), steps=shop.steps)


def publish_generation(
    shop: Workshop,
    codebook: Codebook,
    *,
    asked: AskedPart | None = None,
    calibration: CalibrationPart | None = None,
) -> Manifest:
    """Stage G: the next generation, or the live one itself where nothing differs from it.

    Without a calibration it keeps that of the live one, and so what it was `asked` for.
    """
    require_encoded(shop.layout, shop.journal, codebook=codebook.name)
    manifest = shop.parent
    asked = asked or (manifest.asked if manifest else AskedPart())
    if manifest is None or is_due(shop, codebook, asked=asked, calibration=calibration):
        folders = [record.folder for record in shop.journal.shards()]
        warn_of_imbalance(shop.layout, codebook=codebook.name, folders=folders)
        manifest = publish(shop, codebook, asked=asked, writer=_WRITER, calibration=calibration)
    if shop.milvus and manifest.milvus:
        shop.milvus.switch(manifest.milvus.collection, begun=shop.journal.begun())
    # Where nothing differs, what a build that was killed behind CURRENT left.
    retire(
        shop.layout,
        manifest,
        steps=shop.steps,
        server=shop.server,
        milvus=shop.milvus,
        begun=shop.journal.begun(),
    )
    remove_uploads(shop)
    forget_tuned(shop.layout)
    return manifest
