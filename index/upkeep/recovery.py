"""A lost journal made again from shards: which photo has which row is found by embedding it.

Letters: D embedding.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog import UPLOADS_ROOT
from index.catalog_generations import ShardRecord
from index.catalog_journal import Journal, NewContent, Outcome
from index.catalog_scan import FoundPhoto
from index.changes.record import Added
from index.changes.segment import Segment, segment_numbers
from index.collection.reading import PhotoEmbedder, ReadPhoto, read_photo
from index.collection.sources import Source, open_source, scan
from index.current import generations, live_manifest, read_current
from index.encode import first_free_id
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import builder_lock
from index.manifest import Manifest
from index.prepare import open_journal
from index.searching.live import live_flags
from index.searching.ranker import Ranker
from index.steps import Steps, no_steps
from index.store import remove_temporaries
from multigrain.ahead import in_order
from multigrain.errors import EmbeddingError
from multigrain.files import fsync_folder
from multigrain.locations import Url
from multigrain.progress import Progress

_SAME_COSINE = 0.9999
_NUM_CANDIDATES = 10
_BLOCK, _BATCH = 64, 8
_logger = logging.getLogger(__name__)


class RecoveryReport(NamedTuple):
    """Live rows of the last generation, those whose photo was found, photos without a row."""

    num_rows: int
    num_found: int
    num_unknown: int
    from_catalog: bool


def recover_index(
    root: Path,
    photos: Sequence[Path | Url],
    embedder: PhotoEmbedder,
    *,
    decode_threads: int,
    steps: Steps = no_steps,
) -> RecoveryReport:
    """Make build.sqlite again; the next build publishes from it.

    From a whole catalog of any generation where there is one, and no photo is read. Else the
    photos are embedded, and each takes the live row with which its cosine is at least 0.9999,
    so that ids stay. Raises IndexFolderError where there is no whole manifest or shard.
    """
    layout = Layout(Path(root).absolute())
    manifest = live_manifest(layout)
    _require_model(layout, manifest, embedder)
    sources = [open_source(path) for path in photos]
    with builder_lock(layout.lock):
        remove_temporaries(layout)
        _set_aside(layout.journal)
        try:
            with open_journal(layout, steps=steps) as journal:
                num_live = len(journal.live_ids())
                return RecoveryReport(manifest.counts.live, num_live, 0, from_catalog=True)
        except IndexFolderError as error:
            _logger.warning("no catalog is whole (%s): the photos are embedded", error)
        # Under a temporary name until it is whole: a kill leaves no half of it to a build.
        temporary = layout.journal.with_name(f".{layout.journal.name}.tmp")
        with closing(Journal(temporary, steps=steps)) as journal:
            _take_shards(layout, journal, manifest)
            report = _find_rows(
                layout, journal, manifest, sources, embedder, decode_threads=decode_threads
            )
        steps("rename journal")
        temporary.rename(layout.journal)
        fsync_folder(layout.root)
        steps("journal renamed")
    return report


def _require_model(layout: Layout, manifest: Manifest, embedder: PhotoEmbedder) -> None:
    if embedder.fingerprint != manifest.model.fingerprint:
        raise IndexFolderError(
            f"{layout.root}: built with checkpoint {manifest.model.fingerprint[:12]}, "
            f"not {embedder.fingerprint[:12]}; give the one it was built with"
        )


def _set_aside(journal: Path) -> None:
    """Keep whatever stands in the journal's place under another name, with its log."""
    for suffix in ("", "-wal", "-shm"):
        file = journal.with_name(journal.name + suffix)
        if file.exists():
            file.replace(journal.with_name(f"{journal.name}.lost{suffix}"))


def _take_shards(layout: Layout, journal: Journal, manifest: Manifest) -> None:
    """Know the published shards and generations, and give none of their ids again."""
    pointer = read_current(layout)
    names = {manifest.generation, *generations(layout), *([pointer.generation] if pointer else [])}
    next_id = max(manifest.counts.next_id, first_free_id(layout))
    journal.take_up(names, pointer.sha256 if pointer else "", next_id=next_id)
    for part in manifest.shards:
        journal.add_shard(ShardRecord(part.folder, part.first_id, part.n, manifest.codebook))
    # Else the next build would take in again what the shards hold.
    journal.take_up_segments(manifest.adds.folded)


def _find_rows(
    layout: Layout,
    journal: Journal,
    manifest: Manifest,
    sources: Sequence[Source],
    embedder: PhotoEmbedder,
    *,
    decode_threads: int,
) -> RecoveryReport:
    bases = dict[int, Path | Url]()
    for source in sources:
        number = journal.collection_id(source.root, created=manifest.created)
        journal.record_scan(number, scan(source, skip=layout.root))
        bases[number] = source.base
    added = journal.uploads_id(created=manifest.created)
    journal.record_scan(added, _folded_uploads(layout, manifest))
    bases[added] = layout.uploads
    live = live_flags(layout, manifest)
    ranker = Ranker(
        layout, codebook=manifest.codebook, shards=manifest.shards, live=live, dim=embedder.dim
    )
    finder = _Finder(ranker, journal, embedder)
    progress = Progress(journal.num_pending(list(bases)), "photos")
    num_done = 0
    try:
        for block in _blocks(journal, bases, embedder, decode_threads):
            finder.take(block)
            num_done += len(block)
            progress.update(num_done)
    finally:
        progress.close()
    journal.forget_unread(added)
    return RecoveryReport(
        manifest.counts.live, finder.num_found, finder.num_unknown, from_catalog=False
    )


def _folded_uploads(layout: Layout, manifest: Manifest) -> Iterator[FoundPhoto]:
    """The files of added bytes whose rows the shards hold; the next build takes in the others."""
    waiting = set[str]()
    for number in segment_numbers(layout):
        if number > manifest.adds.folded:
            changes = Segment(layout, number).read().changes
            waiting |= {one.sha256 for one in changes if isinstance(one, Added)}
    if layout.uploads.is_dir():
        found = scan(Source(UPLOADS_ROOT, layout.uploads), skip=layout.staging)
        yield from (one for one in found if one.path not in waiting)


def _blocks(
    journal: Journal, bases: Mapping[int, Path | Url], embedder: PhotoEmbedder, decode_threads: int
) -> Iterator[list[ReadPhoto]]:
    """Photos in scan order, read and decoded by threads ahead of the model."""
    photos = in_order(
        partial(read_photo, bases=bases, read=embedder.read, content_id=journal.content_id),
        journal.pending(list(bases)),
        num_threads=decode_threads,
        window=_BLOCK + 2 * decode_threads,
    )
    while block := list(islice(photos, _BLOCK)):
        yield block


class _Finder:
    """Gives each content the row it was embedded to; a row is given once."""

    def __init__(self, ranker: Ranker, journal: Journal, embedder: PhotoEmbedder) -> None:
        self.num_found, self.num_unknown = 0, 0
        self._ranker, self._journal, self._embedder = ranker, journal, embedder
        self._given = set[int]()

    def take(self, block: list[ReadPhoto]) -> None:
        """Settle photos in scan order; those without a row are left to the next build."""
        # Read before the block ahead of it was committed: its bytes may be known by now.
        ids = {photo.sha256: self._journal.content_id(photo.sha256) for photo in block}
        outcome = Outcome([], [], [])
        fresh = {one.sha256: one for one in block if one.prepared and ids[one.sha256] is None}
        for photo, row in zip(fresh.values(), self._embed(list(fresh.values())), strict=True):
            ids[photo.sha256] = found = self._row_of(row)
            if found is not None:
                outcome.contents.append(_content(found, photo))
        for photo in block:
            content_id = ids[photo.sha256]
            if photo.error is not None:
                outcome.errors.append((photo.photo.photo_id, photo.error))
            elif content_id is not None:
                outcome.links.append((photo.photo.photo_id, content_id))
            else:
                self.num_unknown += 1
        self.num_found += len(outcome.contents)
        self._journal.commit_outcome(outcome, [])

    def _embed(self, photos: list[ReadPhoto]) -> list[NDArray[np.float32] | None]:
        """A unit row for each, None for those the model gives no embedding."""
        pixels = [photo.prepared.pixels for photo in photos if photo.prepared]
        if not pixels:
            return []
        try:
            return list(self._embedder.embed_pixels(pixels, _BATCH))
        except EmbeddingError:
            if len(photos) == 1:
                return [None]
            return [row for one in photos for row in self._embed([one])]

    def _row_of(self, row: NDArray[np.float32] | None) -> int | None:
        """The nearest live row that nobody has yet, the first of equal ones; None: too far."""
        if row is None:
            return None
        (found,) = self._ranker.search(row[None], _NUM_CANDIDATES)
        for one, score in zip(found.ids.tolist(), found.scores.tolist(), strict=True):
            if score >= _SAME_COSINE and one not in self._given:
                self._given.add(one)
                return int(one)
        return None


def _content(content_id: int, photo: ReadPhoto) -> NewContent:
    assert photo.prepared is not None
    prepared = photo.prepared
    return NewContent(
        content_id,
        photo.sha256,
        photo.num_bytes,
        prepared.width,
        prepared.height,
        prepared.format,
        prepared.taken.at,
        prepared.taken.camera,
    )
