"""How a build takes in what was added and deleted while an index was served.

Ids belong to two who give them at the same time. The build keeps those it may need for itself
and starts a segment behind them; then it takes in the segments before that one, whose adds have
their ids already.
"""

import logging

import numpy as np

from index.changes.record import Added, Change, SegmentStart
from index.changes.segment import Part, Segment, begin_segment, segment_numbers
from index.collection.photo_file import read_same_bytes
from index.collection.reading import PhotoEmbedder
from index.lock import adds_lock
from index.staging import StagedShard, StagingWriter, recover
from index.store import Rows16
from index.workshop import Workshop
from multigrain.errors import MultiGrainError

_logger = logging.getLogger(__name__)


def take_changes(shop: Workshop, embedder: PhotoEmbedder, *, num_ids: int, shard_rows: int) -> None:
    """Take in what was added and deleted; later adds have ids behind `num_ids` of the build's."""
    _begin_behind(shop, num_ids)
    folded = shop.journal.folded()
    for number in segment_numbers(shop.layout)[:-1]:
        if number > folded:
            _fold(shop, Segment(shop.layout, number), embedder, shard_rows=shard_rows)


def _begin_behind(shop: Workshop, num_ids: int) -> None:
    """Close the open segment, unless nothing was added to it and it begins behind these ids.

    Where the build needs none, directly behind the last one, so that none is kept for nothing.
    """
    layout, folded = shop.layout, shop.journal.folded()
    with adds_lock(layout.adds_lock):
        numbers = [number for number in segment_numbers(layout) if number > folded]
        last = Segment(layout, numbers[-1] if numbers else folded)
        changes = last.read().changes if numbers else []
        first_id = max(shop.journal.next_id(), last.end if changes else 0) + num_ids
        if last.start and not changes:
            gap = last.start.first_id - first_id
            if gap == 0 or (gap > 0 and num_ids):
                return
        start = SegmentStart(first_id=first_id, fingerprint=shop.model.fingerprint, D=shop.model.D)
        begin_segment(layout, last.number + 1, start, steps=shop.steps)


def _fold(shop: Workshop, segment: Segment, embedder: PhotoEmbedder, *, shard_rows: int) -> None:
    part = segment.read()
    if not segment.is_read:
        path = shop.layout.segment(segment.number)
        _logger.warning("%s: damaged; what stands behind its last whole line is lost", path)
    if segment.start and segment.start.fingerprint != shop.model.fingerprint:
        part = _embedded_again(shop, part, embedder)
    staged = list[StagedShard]()
    if len(part.rows):
        assert segment.start is not None
        staged = _stage(shop, part.rows, first_id=segment.start.first_id, shard_rows=shard_rows)
    shop.journal.fold(segment.number, part.changes, staged, created=shop.started)


def _stage(shop: Workshop, rows: Rows16, *, first_id: int, shard_rows: int) -> list[StagedShard]:
    """Append rows to the unfinished shards, durably; a kill before the commit undoes it."""
    staged = shop.journal.staged()
    recover(shop.layout, staged, dim=shop.model.D)
    with StagingWriter(
        shop.layout,
        last=staged[-1] if staged else None,
        next_id=first_id,
        dim=shop.model.D,
        shard_rows=shard_rows,
        steps=shop.steps,
    ) as writer:
        writer.append(rows)
        return writer.sync()


def _embedded_again(shop: Workshop, part: Part, embedder: PhotoEmbedder) -> Part:
    """The same changes with rows of this model; an add whose bytes are gone leaves."""
    changes = list[Change]()
    rows = np.zeros((len(part.rows), shop.model.D), part.rows.dtype)
    place = -1
    for change in part.changes:
        if isinstance(change, Added):
            place += 1
            row = _embed(shop, change, embedder)
            if row is None:
                continue
            rows[place] = row
        changes.append(change)
    return Part(changes, rows)


def _embed(shop: Workshop, added: Added, embedder: PhotoEmbedder) -> Rows16 | None:
    path = shop.layout.upload(added.sha256)
    data = read_same_bytes([path], bytes.fromhex(added.sha256), num_bytes=added.num_bytes)
    try:
        if data is not None:
            (row,) = embedder.embed_pixels([embedder.read(data).pixels], 1)
            stored: Rows16 = row.astype(np.float16)
            return stored
    except MultiGrainError as error:
        _logger.warning("%s: %s", path, error)
    _logger.warning("%s: not there or unreadable; added photo %d is lost", path, added.id)
    return None
