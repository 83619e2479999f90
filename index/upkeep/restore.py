"""Shards with a lost file become staged rows again, for which the stage encode makes lists.

Rows come from the shard's own emb.f16 or, where that is lost, from the photos.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog_generations import ShardRecord
from index.catalog_journal import ContentFiles
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder
from index.encode import link_or_copy, read_shard
from index.errors import IndexFolderError
from index.layout import Layout
from index.staging import StagedShard
from index.store import EMBEDDING_DTYPE, fsync_file, require_size
from index.workshop import Workshop
from multigrain.ahead import in_order
from multigrain.errors import EmbeddingError
from multigrain.files import fsync_folder, sha256_of
from multigrain.photo import PhotoError

if TYPE_CHECKING:
    from multigrain.prepared import Prepared

_NORM_TOLERANCE = 1e-3
_BATCH = 8
_IDS_PER_QUERY = 10_000
_logger = logging.getLogger(__name__)


class _Content(NamedTuple):
    """A content whose bytes were found again."""

    id: int
    prepared: "Prepared"


def restore_rows(shop: Workshop, embedder: PhotoEmbedder, *, decode_threads: int) -> None:
    """Embed the photos of every shard whose rows are lost; their ids stay.

    A content whose bytes no file holds any more is forgotten with its row, which is zero.
    """
    for record in shop.journal.shards():
        rows = shop.layout.embeddings(record.folder)
        fault = _fault_of_rows(rows, record, dim=shop.model.D)
        if fault is None:
            continue
        _logger.warning("%s; its photos are embedded again", fault)
        staged = shop.layout.staged(StagedShard(record.first_id, 0).name)
        with staged.open("wb") as file:
            file.truncate(record.n * shop.model.D * EMBEDDING_DTYPE.itemsize)
        shape = (record.n, shop.model.D)
        target = np.memmap(staged, dtype=EMBEDDING_DTYPE, mode="r+", shape=shape)
        lost_ids = set[int]()
        for contents in _pages(shop, record):
            lost_ids |= {one.id for one in contents}
            for number, row in _embedded(contents, embedder, decode_threads=decode_threads):
                target[number - record.first_id] = row
                lost_ids.discard(number)
        target.flush()
        _make_durable(shop.layout, staged)
        rows.unlink(missing_ok=True)
        shop.journal.restage(record, lost_ids=sorted(lost_ids))


def restage_lists(shop: Workshop) -> None:
    """Take the rows of every shard that lost another file for staged ones."""
    for record in shop.journal.shards():
        try:
            _require_whole(shop.layout, record)
        except IndexFolderError as error:
            rows = shop.layout.embeddings(record.folder)
            if fault := _fault_of_rows(rows, record, dim=shop.model.D):
                raise IndexFolderError(f"{fault}; run the stage embed") from error
            _logger.warning("%s; its shard is encoded again", error)
            staged = shop.layout.staged(StagedShard(record.first_id, 0).name)
            staged.unlink(missing_ok=True)
            link_or_copy(rows, staged)
            _make_durable(shop.layout, staged)
            # Only a file that is not there is taken from the new folder of the same name.
            for path in shop.layout.shard_document(record.folder).parent.iterdir():
                if path != rows:
                    path.unlink()
            shop.journal.restage(record)


def _fault_of_rows(rows: Path, record: ShardRecord, *, dim: int) -> IndexFolderError | None:
    try:
        require_size(rows, record.n * dim * EMBEDDING_DTYPE.itemsize)
    except IndexFolderError as error:
        return error
    return None


def _require_whole(layout: Layout, record: ShardRecord) -> None:
    path = layout.shard_document(record.folder)
    if not path.is_file():
        raise IndexFolderError(f"{path}: missing")
    digest = sha256_of(path)
    if not digest.startswith(record.folder):
        raise IndexFolderError(f"{path}: damaged, its hash is not its folder's name")
    read_shard(layout, record.folder, expected_sha256=digest)


def _make_durable(layout: Layout, staged: Path) -> None:
    fsync_file(staged)
    fsync_folder(layout.staging)


def _pages(shop: Workshop, record: ShardRecord) -> Iterator[list[ContentFiles]]:
    end = record.first_id + record.n
    for start in range(record.first_id, end, _IDS_PER_QUERY):
        yield shop.journal.content_files(start, min(start + _IDS_PER_QUERY, end))


def _embedded(
    contents: Sequence[ContentFiles], embedder: PhotoEmbedder, *, decode_threads: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Ids and unit rows of the contents whose bytes are still there."""
    read = in_order(
        partial(_read, embedder=embedder),
        contents,
        num_threads=decode_threads,
        window=2 * (_BATCH + decode_threads),
    )
    found = (one for one in read if one is not None)
    while batch := list(islice(found, _BATCH)):
        try:
            rows = embedder.embed_pixels([one.prepared.pixels for one in batch], _BATCH)
        except EmbeddingError as error:
            _logger.warning("%d photos cannot be embedded again: %s", len(batch), error)
            continue
        for one, row in zip(batch, rows, strict=True):
            if abs(float(np.linalg.norm(row)) - 1.0) <= _NORM_TOLERANCE:
                yield one.id, row


def _read(content: ContentFiles, *, embedder: PhotoEmbedder) -> _Content | None:
    for path in content.files:
        try:
            data = read_photo_file(path, max_bytes=content.num_bytes)
            if sha256(data).digest() == content.sha256:
                return _Content(content.id, embedder.read(data))
        except PhotoError:  # gone, or another file now: another path may hold the same bytes
            continue
    return None
