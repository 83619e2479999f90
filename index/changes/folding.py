"""How a build takes in what was added and deleted while an index was served.

Ids belong to two who give them at the same time. The build keeps those it may need for itself
and starts a segment behind them; then it takes in the segments before that one, whose adds have
their ids already.
"""

import logging
from collections.abc import Mapping

import numpy as np

from index.changes.record import Added, SegmentStart
from index.changes.segment import Part, Segment, begin_segment, segment_numbers
from index.collection.photo_file import read_same_bytes
from index.collection.reading import PhotoEmbedder
from index.lock import adds_lock
from index.staging import StagedShard, staging_behind
from index.store import EMBEDDING_DTYPE, Rows16
from index.workshop import Workshop
from multigrain.errors import MultiGrainError

_logger = logging.getLogger(__name__)


def take_changes(shop: Workshop, embedder: PhotoEmbedder, *, num_ids: int, shard_rows: int) -> None:
    """Take in what was added and deleted; later adds have ids behind `num_ids` of the build's."""
    _begin_behind(shop, num_ids)
    for number in _unfolded(shop)[:-1]:
        _fold(shop, _segment(shop, number), embedder, shard_rows=shard_rows)


def _unfolded(shop: Workshop) -> list[int]:
    folded = shop.journal.folded()
    return [number for number in segment_numbers(shop.layout) if number > folded]


def _segment(shop: Workshop, number: int) -> Segment:
    """A segment; where its first line is damaged its rows are nobody's, but its ids stay given."""
    first_id = shop.journal.first_id_of_segment(number)
    if first_id is None:  # begun before the journal knew of it
        first_id = shop.journal.next_id()
    start = SegmentStart(first_id=first_id, fingerprint="", D=shop.model.D)
    return Segment(shop.layout, number, instead=start)


def _begin_behind(shop: Workshop, num_ids: int) -> None:
    """Close the open segment, unless nothing was added to it and it begins behind these ids.

    Where the build needs none, directly behind the last one, so that none is kept for nothing.
    """
    with adds_lock(shop.layout.adds_lock):
        segments = [_segment(shop, number) for number in _unfolded(shop)]
        used = [one for one in segments if one.read().changes or one.damaged or one.num_rows_lost]
        first_id = max([shop.journal.next_id(), *(one.end for one in used)]) + num_ids
        last = segments[-1] if segments else None
        if last and last.start and last not in used:
            gap = last.start.first_id - first_id
            if gap == 0 or (gap > 0 and num_ids):
                return
        number = 1 + (last.number if last else shop.journal.folded())
        start = SegmentStart(first_id=first_id, fingerprint=shop.model.fingerprint, D=shop.model.D)
        shop.journal.begin_segment(number, first_id=first_id)
        begin_segment(shop.layout, number, start, steps=shop.steps)


def _fold(shop: Workshop, segment: Segment, embedder: PhotoEmbedder, *, shard_rows: int) -> None:
    part = segment.read()
    _warn_of_damage(shop, segment)
    assert segment.start is not None
    first_id = segment.start.first_id
    is_ours = segment.start.fingerprint == shop.model.fingerprint
    rows = _rows_of(shop, part, part.rows if is_ours else {}, embedder)
    # Ids that were given and have no row any more stay dead: their rows are zero.
    values = np.zeros((segment.end - first_id, shop.model.D), EMBEDDING_DTYPE)
    for content_id, row in rows.items():
        values[content_id - first_id] = row
    staged = list[StagedShard]()
    if len(values):
        staged = _stage(shop, values, first_id=first_id, shard_rows=shard_rows)
    changes = [one for one in part.changes if not isinstance(one, Added) or one.id in rows]
    shop.journal.fold(segment.number, changes, staged, created=shop.started)


def _rows_of(
    shop: Workshop, part: Part, rows: Mapping[int, Rows16], embedder: PhotoEmbedder
) -> dict[int, Rows16]:
    """The rows of the adds, those there are and those that are made again from the bytes."""
    found = dict(rows)
    for one in part.changes:
        if isinstance(one, Added) and one.id not in found:
            row = _embedded_again(shop, one, embedder)
            if row is not None:
                found[one.id] = row
    return found


def _warn_of_damage(shop: Workshop, segment: Segment) -> None:
    path = shop.layout.segment(segment.number)
    for line in segment.damaged:
        _logger.warning("%s: line %d is damaged: what it says is lost", path, line)
    if segment.num_rows_lost:
        _logger.warning("%s: the lines of %d added photos are lost", path, segment.num_rows_lost)
    if not segment.is_read:
        _logger.warning("%s: its last line has no end and is passed over", path)


def _stage(shop: Workshop, rows: Rows16, *, first_id: int, shard_rows: int) -> list[StagedShard]:
    """Append rows to the unfinished shards, durably; a kill before the commit undoes it."""
    with staging_behind(
        shop.layout,
        shop.journal.staged(),
        next_id=first_id,
        dim=shop.model.D,
        shard_rows=shard_rows,
        steps=shop.steps,
    ) as writer:
        writer.append(rows)
        return writer.sync()


def _embedded_again(shop: Workshop, added: Added, embedder: PhotoEmbedder) -> Rows16 | None:
    """The row of added bytes by this model, fp16 [D]; None where they are gone."""
    path = shop.layout.upload(added.sha256)
    data = read_same_bytes([path], bytes.fromhex(added.sha256), num_bytes=added.num_bytes)
    try:
        if data is not None:
            (row,) = embedder.embed_pixels([embedder.read(data).pixels], 1)
            stored: Rows16 = row.astype(EMBEDDING_DTYPE)
            return stored
    except MultiGrainError as error:
        _logger.warning("%s: %s", path, error)
    _logger.warning("%s: not there or unreadable; added photo %d is lost", path, added.id)
    return None
