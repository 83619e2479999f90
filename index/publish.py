"""Stage G: a generation's live bitmap, catalog and manifest; then CURRENT names it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.catalog_generations import ShardRecord
from index.catalog_journal import Journal
from index.catalog_publishing import CatalogServer
from index.codebook.factory import is_exact
from index.codebook.train import Codebook, codebook_files
from index.current import read_current, write_current, write_manifest
from index.encode import read_shard
from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import (
    AddsPart,
    AskedPart,
    CalibrationPart,
    CountsPart,
    DatabasePart,
    FilePart,
    Manifest,
    MilvusPart,
    ShardPart,
)
from index.milvus_loading import MilvusServer
from index.searching.canaries import choose_canaries
from index.searching.ranker import Ranker
from index.steps import Steps
from index.store import pack_live, require_size, unpack_live, write_whole
from index.tuning.tuned import last_tuned
from index.workshop import Workshop
from multigrain.files import sha256_of, write_via_temporary

_logger = logging.getLogger(__name__)


def publish(
    shop: Workshop,
    codebook: Codebook,
    *,
    asked: AskedPart,
    writer: str,
    calibration: CalibrationPart | None,
) -> Manifest:
    """Write the next generation and make it the live one; without a calibration, its parent's.

    Its catalog is put into the database of the workshop's server too, for readers to ask, and its
    live rows into its Milvus.
    """
    layout, journal, parent, steps = shop.layout, shop.journal, shop.parent, shop.steps
    name, live_ids = journal.start_generation(), journal.live_ids()
    shards = shard_parts(layout, journal)
    counts = _counts(journal, num_live=len(live_ids), num_rows=sum(part.n for part in shards))
    bitmap = pack_live(live_ids, num_ids=counts.next_id)
    write_whole(layout.live_bitmap(name), bitmap.tobytes(), steps=steps)
    _write_catalog(layout, journal, name, steps=steps)
    ranker = Ranker(
        layout,
        codebook=codebook.name,
        shards=shards,
        live=unpack_live(bitmap, num_ids=counts.next_id),
        dim=shop.model.D,
        mapped=True,
    )
    manifest = Manifest(
        generation=name,
        parent=parent.generation if parent else None,
        created=shop.started,
        writer=writer,
        model=shop.model,
        codebook=codebook.name,
        codebook_files=codebook_files(layout, codebook.name, parent),
        factory=codebook.factory,
        shards=shards,
        tombstones=_file_part(layout, layout.live_bitmap(name)),
        catalog=_file_part(layout, layout.catalog(name)),
        database=_database_part(shop, name),
        milvus=_milvus_part(shop, codebook, ranker, live_ids, shards),
        checkpoint=_checkpoint_part(shop),
        counts=counts,
        adds=AddsPart(folded=journal.folded()),
        asked=asked,
        search=last_tuned(layout, parent, codebook),
        calibration=_calibration_part(parent, calibration, name, num_live=len(live_ids)),
        canaries=choose_canaries(ranker, live_ids),
    )
    pointer = write_manifest(layout, manifest, steps=steps)
    write_current(layout, pointer, steps=steps)
    journal.close_generation(name, pointer.sha256)
    return manifest


def is_due(
    shop: Workshop, codebook: Codebook, *, asked: AskedPart, calibration: CalibrationPart | None
) -> bool:
    """Whether a new generation would differ from the live one."""
    layout, journal, parent = shop.layout, shop.journal, shop.parent
    if parent is None:
        return True
    has_changed = journal.open_generation() is not None or codebook.name != parent.codebook
    pointer = read_current(layout)
    is_live = pointer is not None and pointer.generation == parent.generation
    is_other = has_changed or codebook.factory != parent.factory or asked != parent.asked
    is_tuned_anew = not is_exact(codebook.factory) and (
        last_tuned(layout, parent, codebook) != parent.search
    )
    is_fitted_anew = calibration is not None and not calibration.is_same_fit(parent.calibration)
    is_there = _is_on(shop.server, parent) and _is_in(shop.milvus, parent)
    is_whole = _has_files(layout, parent) and is_there
    return is_other or is_tuned_anew or is_fitted_anew or not is_live or not is_whole


def _is_on(server: CatalogServer | None, parent: Manifest) -> bool:
    """Whether the live generation's catalog is where it is wanted: in its file or a database."""
    if server is None or parent.database is None:
        return server is None and parent.database is None
    return parent.database.url == server.address and server.has(parent.database.namespace)


def _is_in(milvus: MilvusServer | None, parent: Manifest) -> bool:
    """Whether the live generation's rows are searched where they are wanted."""
    if milvus is None or parent.milvus is None:
        return milvus is None and parent.milvus is None
    return parent.milvus.uri == milvus.uri and milvus.has(parent.milvus)


def _has_files(layout: Layout, parent: Manifest) -> bool:
    """Whether the live generation's own files are there; the journal can write them again."""
    try:
        for part in (parent.catalog, parent.tombstones):
            require_size(layout.root / part.file, part.size)
    except IndexFolderError as error:
        _logger.warning("generation %s is written anew: %s", parent.generation, error)
        return False
    return True


def shard_parts(layout: Layout, journal: Journal) -> list[ShardPart]:
    """The encoded shards as a manifest names them."""
    return [_shard_part(layout, record) for record in journal.shards()]


def _shard_part(layout: Layout, record: ShardRecord) -> ShardPart:
    digest = sha256_of(layout.shard_document(record.folder))
    document = read_shard(layout, record.folder, expected_sha256=digest)
    return ShardPart(
        folder=record.folder,
        first_id=record.first_id,
        n=record.n,
        sha256=digest,
        codes=document.codes,
    )


def _counts(journal: Journal, *, num_live: int, num_rows: int) -> CountsPart:
    photos = journal.counts()
    return CountsPart(
        rows=num_rows,
        live=num_live,
        dead=num_rows - num_live,
        photos=photos.photos,
        quarantined=photos.quarantined,
        next_id=journal.next_id(),
    )


def _write_catalog(layout: Layout, journal: Journal, name: str, *, steps: Steps) -> None:
    steps("write catalog")
    with write_via_temporary(layout.catalog(name)) as temporary:
        journal.write_catalog(temporary)
    steps("catalog written")


def _database_part(shop: Workshop, name: str) -> DatabasePart | None:
    if shop.server is None:
        return None
    begun = shop.journal.begun()
    namespace = shop.server.publish(shop.layout.catalog(name), name, begun=begun, steps=shop.steps)
    return DatabasePart(url=shop.server.address, namespace=namespace)


def _milvus_part(
    shop: Workshop,
    codebook: Codebook,
    ranker: Ranker,
    live_ids: NDArray[np.int64],
    shards: Sequence[ShardPart],
) -> MilvusPart | None:
    if shop.milvus is None:
        return None
    return shop.milvus.load(
        ranker.rows,
        live_ids,
        shards=shards,
        factory=codebook.factory,
        begun=shop.journal.begun(),
        steps=shop.steps,
    )


def _calibration_part(
    parent: Manifest | None, fitted: CalibrationPart | None, name: str, *, num_live: int
) -> CalibrationPart | None:
    """What was fitted now, on so many photos, else what there was."""
    if fitted is None:
        return parent.calibration if parent else None
    return fitted.model_copy(update={"generation": name, "live": num_live})


def _checkpoint_part(shop: Workshop) -> FilePart:
    # Hashed once: a copy that was damaged since must not become the truth.
    known = shop.parent.checkpoint if shop.parent else None
    return known or _file_part(shop.layout, shop.layout.checkpoint(shop.model.fingerprint))


def _file_part(layout: Layout, path: Path) -> FilePart:
    return FilePart(
        file=path.relative_to(layout.root).as_posix(),
        sha256=sha256_of(path),
        size=path.stat().st_size,
    )
