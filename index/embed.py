"""Stage B: pending photos become staged rows and contents, durable in steps.

Photos are read by threads ahead of the model and taken in scan order. Contents are embedded in
blocks that depend only on that order, so an interrupted build meets the same blocks again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from index.catalog_journal import Journal, NewContent, Outcome
from index.collection.known import KnownContents
from index.collection.meter import Meter
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder, ReadPhoto, read_photo
from index.layout import Layout
from index.staging import StagingWriter, recover
from index.steps import Steps
from multigrain.ahead import in_order
from multigrain.embedder import EmbeddingError
from multigrain.engine import DeviceMemoryError

if TYPE_CHECKING:
    from multigrain.progress import Progress

DURABLE_ROWS = 65_536
DURABLE_SECONDS = 60.0
# A run of photos that need no row must show progress and be committed too.
_LOOK_EVERY = 256
_NORM_TOLERANCE = 1e-3
_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 64
# A block is several batches, so that each shape of the whole-photo rule fills a batch.
_BATCHES_PER_BLOCK = 4


class EmbedReport(NamedTuple):
    """What one run did: contents embedded, photos whose bytes had a row, photos that failed.

    `limit` is what the rest waited for, `bad` counts all bad photos of the index by code.
    """

    num_new: int
    num_known: int
    num_bad: int
    num_bytes: int
    seconds: float
    limit: str
    bad: dict[str, int]

    @property
    def num_photos(self) -> int:
        """Photos that were read."""
        return self.num_new + self.num_known + self.num_bad

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self.num_photos / self.seconds if self.seconds else 0.0


def embed_pending(
    layout: Layout,
    journal: Journal,
    embedder: PhotoEmbedder,
    bases: Mapping[int, Path],
    *,
    shard_rows: int,
    decode_threads: int,
    verify_content: bool,
    progress: "Progress",
    steps: Steps,
) -> EmbedReport:
    """Embed every pending photo of the collections in `bases` (number -> folder).

    With `verify_content` every photo is read and hashed, and embedded when its bytes are new.
    """
    staged = journal.staged()
    recover(layout, staged, dim=embedder.dim)
    batch_size = _BATCH_ON_CPU if str(embedder.device).startswith("cpu") else _BATCH_ON_GPU
    block_size = batch_size * _BATCHES_PER_BLOCK
    known = KnownContents(journal.hashes(), journal.content_id)
    meter = Meter(num_threads=decode_threads)
    read = partial(
        read_photo,
        bases=bases,
        read=embedder.read,
        content_id=known.id_of,
        read_file=meter.opening(read_photo_file),
    )
    embed = meter.embedding(partial(embedder.embed_pixels, batch_size=batch_size))
    with StagingWriter(
        layout,
        last=staged[-1] if staged else None,
        next_id=journal.next_id(),
        dim=embedder.dim,
        shard_rows=shard_rows,
        steps=steps,
    ) as writer:
        rows = _Rows(journal, writer, known, embed)
        photos = in_order(
            meter.reading(read),
            journal.pending(list(bases), every=verify_content),
            num_threads=decode_threads,
            window=block_size + 2 * decode_threads,
        )
        num_done = 0
        try:
            for num_done, photo in enumerate(meter.taking(photos), start=1):
                is_full = rows.take(photo) == block_size
                if is_full:
                    rows.finish_block()
                if is_full or num_done % _LOOK_EVERY == 0:
                    rows.commit_when_due()
                    progress.update(num_done, rows.note(num_done, meter.limit()))
            rows.finish_block()
        except DeviceMemoryError:
            rows.commit()  # the blocks that are done
            raise
        rows.commit()
        if num_done:
            progress.update(num_done, rows.note(num_done, meter.limit()))
    return EmbedReport(
        num_new=rows.num_new,
        num_known=num_done - rows.num_new - rows.num_bad,
        num_bad=rows.num_bad,
        num_bytes=meter.num_bytes,
        seconds=meter.seconds,
        limit=meter.limit(),
        bad={},
    )


class _Rows:
    """Turns read photos into rows and outcomes, a block at a time."""

    def __init__(
        self,
        journal: Journal,
        writer: StagingWriter,
        known: KnownContents,
        embed: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_new, self.num_bad = 0, 0
        self._journal, self._writer, self._known = journal, writer, known
        self._embed, self._clock = embed, clock
        self._next_id = journal.next_id()
        self._block: list[ReadPhoto] = []
        self._waiting: dict[bytes, ReadPhoto] = {}
        self._ids: dict[bytes, int] = {}  # settled, not yet committed
        self._faults: dict[bytes, str] = {}
        self._outcome = Outcome([], [], [])
        self._committed_at = clock()

    def note(self, num_done: int, limit: str) -> str:
        """What a line of progress says behind a block of photos, besides their number."""
        num_known = num_done - self.num_new - self.num_bad - len(self._block)
        return f"({limit} limits), {num_known} known, {self.num_bad} bad"

    def take(self, photo: ReadPhoto) -> int:
        """Accept the next photo in scan order; gives how many distinct contents wait."""
        if photo.error is not None:
            self._fail(photo, photo.error)
        elif (verdict := self._verdict(photo.sha256)) is not None:
            self._conclude(photo, verdict)
        else:
            first = self._waiting.setdefault(photo.sha256, photo)
            # However many copies of it wait, a content's pixels are held once.
            self._block.append(photo if first is photo else photo._replace(prepared=None))
        return len(self._waiting)

    def finish_block(self) -> None:
        """Embed what waits, and settle its photos."""
        if self._waiting:
            self._settle(list(self._waiting.values()))
        for photo in self._block:
            verdict = self._verdict(photo.sha256)
            assert verdict is not None
            self._conclude(photo, verdict)
        self._waiting.clear()
        self._block.clear()

    def commit_when_due(self) -> None:
        """Commit after a minute, or when there is much to commit: photos read again count too."""
        is_late = self._clock() - self._committed_at >= DURABLE_SECONDS
        num_photos = max(len(self._outcome.links), len(self._outcome.errors))
        if is_late or num_photos >= DURABLE_ROWS:
            self.commit()

    def commit(self) -> None:
        """Make everything settled durable."""
        staged = self._writer.sync() if self._outcome.contents else []
        self._journal.commit_outcome(self._outcome, staged)
        self._outcome = Outcome([], [], [])
        self._known.add(self._ids)
        self._ids.clear()
        self._committed_at = self._clock()

    def _verdict(self, sha256: bytes) -> int | str | None:
        """The id of bytes that have a row, or their fault; None while they have neither."""
        fault = self._faults.get(sha256)
        if fault is not None:
            return fault
        content_id = self._ids.get(sha256)
        # Bytes may have been committed since their second photo was read.
        return self._known.id_of(sha256) if content_id is None else content_id

    def _settle(self, photos: list[ReadPhoto]) -> None:
        """Give each photo's content an id and a row, or a fault."""
        rows = self._embedded([_pixels(photo) for photo in photos])
        # A NaN or infinite value makes the comparison false.
        are_unit = np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= _NORM_TOLERANCE
        for photo, is_unit in zip(photos, are_unit.tolist(), strict=True):
            if not is_unit:
                self._faults[photo.sha256] = f"embedding_invalid {photo.sha256.hex()}"
                continue
            self._ids[photo.sha256] = self._next_id
            self._outcome.contents.append(_new_content(self._next_id, photo))
            self._next_id += 1
        if num_good := int(np.count_nonzero(are_unit)):
            # As numpy rounds, several times faster.
            halves = torch.from_numpy(rows[are_unit]).half().numpy()
            self._writer.append(halves)
            self.num_new += num_good

    def _conclude(self, photo: ReadPhoto, verdict: int | str) -> None:
        if isinstance(verdict, str):
            self._fail(photo, verdict)
        else:
            self._outcome.links.append((photo.photo.photo_id, verdict))

    def _fail(self, photo: ReadPhoto, error: str) -> None:
        self.num_bad += 1
        if error != photo.photo.error:
            self._outcome.errors.append((photo.photo.photo_id, error))

    def _embedded(self, pixels: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """A row for each, NaN for those the model gives no embedding."""
        try:
            return self._embed(pixels)
        except EmbeddingError:
            if len(pixels) == 1:
                return np.full((1, self._writer.dim), np.nan, dtype=np.float32)
            # One bad photo must not cost its neighbours their place.
            return np.concatenate([self._embedded([one]) for one in pixels])


def _pixels(photo: ReadPhoto) -> NDArray[np.uint8]:
    assert photo.prepared is not None
    return photo.prepared.pixels


def _new_content(content_id: int, photo: ReadPhoto) -> NewContent:
    assert photo.prepared is not None
    _, width, height, name, _, taken = photo.prepared
    return NewContent(
        content_id,
        photo.sha256,
        photo.num_bytes,
        width,
        height,
        name,
        taken.at,
        taken.camera,
    )
