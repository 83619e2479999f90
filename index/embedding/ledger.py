"""What became of photos: claimed in scan order, given a row or a fault, made durable in steps."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from index.catalog_journal import Journal, NewContent, Outcome
from index.collection.known import KnownContents
from index.collection.reading import ReadPhoto
from index.embedding.blocks import EmbeddedBlock
from index.staging import StagingWriter

DURABLE_ROWS = 65_536
DURABLE_SECONDS = 60.0
_NORM_TOLERANCE = 1e-3


class Ledger:
    """Turns embedded blocks into rows, contents and outcomes; commits at their bounds alone."""

    def __init__(
        self,
        journal: Journal,
        writer: StagingWriter,
        known: KnownContents,
        *,
        durable_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_photos = self.num_new = self.num_bad = 0
        self._journal, self._writer, self._known = journal, writer, known
        self._durable_rows, self._clock = durable_rows, clock
        self._next_id = journal.next_id()
        self._claimed = set[bytes]()
        self._ids: dict[bytes, int] = {}  # settled, not yet committed
        self._faults: dict[bytes, str] = {}
        self._outcome = Outcome([], [], [])
        self._committed_at = clock()

    @property
    def num_known(self) -> int:
        """Photos whose bytes had a row."""
        return self.num_photos - self.num_new - self.num_bad

    def claim(self, photos: Sequence[ReadPhoto]) -> list[bool]:
        """Which photos of a block are to be embedded: the first of each content without a row."""
        wanted = list[bool]()
        for photo in photos:
            is_wanted = photo.prepared is not None and photo.sha256 not in self._claimed
            is_wanted = is_wanted and self._verdict(photo.sha256) is None
            if is_wanted:
                self._claimed.add(photo.sha256)
            wanted.append(is_wanted)
        return wanted

    def settle(self, block: EmbeddedBlock) -> None:
        """Give the embedded photos ids and rows, or faults, and every photo its outcome."""
        self._give_rows(block.embedded, block.rows)
        for photo in block.photos:
            verdict = photo.error or self._verdict(photo.sha256)
            if verdict is None:
                # Another process took it for known by the head of its hash: tried again next time.
                verdict = "photo_unreadable"
            if isinstance(verdict, str):
                self._fail(photo, verdict)
            else:
                self._outcome.links.append((photo.photo.photo_id, verdict))
        self.num_photos += len(block.photos)

    def commit_when_due(self) -> None:
        """Commit after a minute, or when there is much to commit: photos read again count too."""
        is_late = self._clock() - self._committed_at >= DURABLE_SECONDS
        num_photos = max(len(self._outcome.links), len(self._outcome.errors))
        if is_late or num_photos >= self._durable_rows:
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

    def _give_rows(self, photos: Sequence[ReadPhoto], rows: NDArray[np.float32]) -> None:
        # A NaN or infinite value makes the comparison false.
        are_unit = np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= _NORM_TOLERANCE
        for photo, is_unit in zip(photos, are_unit.tolist(), strict=True):
            self._claimed.discard(photo.sha256)
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

    def _fail(self, photo: ReadPhoto, error: str) -> None:
        self.num_bad += 1
        if error != photo.photo.error:
            self._outcome.errors.append((photo.photo.photo_id, error))


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
