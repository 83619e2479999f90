"""Adds and deletes while an index is served: one process appends them to the journal."""

import zlib
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from index.changes.record import Added, Deleted, Linked, to_line
from index.changes.segment import Segment
from index.errors import ChangesRefusedError, IndexFolderError, NotWriterError
from index.layout import Layout
from index.lock import adds_lock, require_original, take_lock
from index.searcher import Searcher
from index.steps import Steps, no_steps
from index.store import EMBEDDING_DTYPE, Rows16
from multigrain.files import write_via_temporary
from multigrain.prepared import Prepared

_NORM_TOLERANCE = 1e-3


class NewPhoto(NamedTuple):
    """Bytes to add, what decoding them gave, and the attributes they are to have."""

    data: bytes
    prepared: Prepared
    metadata: dict[str, JsonValue]


class AddedPhoto(NamedTuple):
    """The id of added bytes; not new where they were live already."""

    id: int
    is_new: bool


class ChangeWriter:
    """The one process whose adds and deletes are taken, until `close` or its end.

    Safe under concurrent callers; each change is durable and can be found when its call returns.
    """

    def __init__(self, root: Path, *, steps: Steps = no_steps) -> None:
        self._layout, self._steps = Layout(Path(root)), steps
        require_original(self._layout)
        try:
            held = take_lock(self._layout.adds_writer)
        except OSError as error:
            raise self._refused(error) from error
        if held is None:
            raise NotWriterError(
                f"{self._layout.adds}: another process takes the adds and deletes of this index"
            )
        self._held = held
        # Nobody else writes there: what a killed writer has left.
        for leftover in self._layout.uploads.glob(".*.tmp"):
            leftover.unlink()

    def add(self, searcher: Searcher, photo: NewPhoto, row: NDArray[np.float32]) -> AddedPhoto:
        """Add bytes with their unit row fp32 [D]; those that are live already as `add_known` does.

        Raises ChangesRefusedError, and IndexFolderError for a row that is no unit vector or
        metadata that is not JSON.
        """
        digest = sha256(photo.data).hexdigest()
        stored = _stored(row, dim=searcher.dim)
        try:
            with adds_lock(self._layout.adds_lock):
                searcher.refresh()
                known = searcher.present.id_of(digest)
                if known is not None:
                    self._link(searcher, known, digest, photo.data, photo.metadata)
                    return AddedPhoto(known, is_new=False)
                segment = self._segment(searcher)
                record = _record(segment.end, digest, photo, stored)
                to_line(record)  # refused before anything is written
                self._write_upload(digest, photo.data)
                segment.append(record, stored, steps=self._steps)
                searcher.refresh()
        except OSError as error:
            raise self._refused(error) from error
        return AddedPhoto(record.id, is_new=True)

    def add_known(
        self, searcher: Searcher, data: bytes, metadata: dict[str, JsonValue]
    ) -> int | None:
        """Add live bytes again: they keep their id, and stay if all their other files vanish.

        Attributes replace those they were added with before; none leave them as they are. None
        where the bytes are not live. Raises as `add`.
        """
        digest = sha256(data).hexdigest()
        try:
            with adds_lock(self._layout.adds_lock):
                searcher.refresh()
                known = searcher.present.id_of(digest)
                if known is not None:
                    self._link(searcher, known, digest, data, metadata)
        except OSError as error:
            raise self._refused(error) from error
        return known

    def delete(self, searcher: Searcher, content_id: int) -> bool:
        """Take a content out, and keep its bytes out of builds; False where none is live.

        Raises ChangesRefusedError.
        """
        try:
            with adds_lock(self._layout.adds_lock):
                searcher.refresh()
                digest = searcher.present.hash_of(content_id)
                if digest is None:
                    return False
                record = Deleted(id=content_id, sha256=digest)
                self._segment(searcher).append(record, None, steps=self._steps)
                searcher.refresh()
        except OSError as error:
            raise self._refused(error) from error
        return True

    def close(self) -> None:
        """Let another process take the changes."""
        self._held.close()

    def _link(
        self,
        searcher: Searcher,
        known: int,
        digest: str,
        data: bytes,
        metadata: dict[str, JsonValue],
    ) -> None:
        if not says_more(searcher, known, metadata):
            return
        segment = self._segment(searcher)
        record = Linked(id=known, sha256=digest, num_bytes=len(data), metadata=metadata)
        to_line(record)  # refused before anything is written
        self._write_upload(digest, data)
        segment.append(record, None, steps=self._steps)
        searcher.refresh()

    def _segment(self, searcher: Searcher) -> Segment:
        segment = searcher.open_segment()
        if segment is None:
            raise ChangesRefusedError(
                f"{self._layout.root}: no journal can be gone on with (none is begun, or it is "
                "damaged); run index.build once more"
            )
        return segment

    def _write_upload(self, digest: str, data: bytes) -> None:
        self._steps("write upload")
        with write_via_temporary(self._layout.upload(digest)) as temporary:
            temporary.write_bytes(data)
        self._steps("upload written")

    def _refused(self, error: OSError) -> ChangesRefusedError:
        name = error.filename or self._layout.adds
        return ChangesRefusedError(f"{name}: {error.strerror or error}; nothing was changed")


def says_more(searcher: Searcher, content_id: int, metadata: dict[str, JsonValue]) -> bool:
    """Whether adding a live content again would change anything."""
    before = searcher.present.attributes_added(content_id)
    return before is None or (bool(metadata) and metadata != before)


def _stored(row: NDArray[np.float32], *, dim: int) -> Rows16:
    # A NaN or infinite value makes the comparison false.
    if row.shape != (dim,) or not abs(float(np.linalg.norm(row)) - 1.0) <= _NORM_TOLERANCE:
        raise IndexFolderError(f"the embedding, of shape {list(row.shape)}, is no unit vector")
    return row.astype(EMBEDDING_DTYPE)


def _record(content_id: int, digest: str, photo: NewPhoto, row: Rows16) -> Added:
    prepared = photo.prepared
    return Added(
        id=content_id,
        sha256=digest,
        row_crc32=zlib.crc32(row.tobytes()),
        num_bytes=len(photo.data),
        width=prepared.width,
        height=prepared.height,
        format=prepared.format,
        taken_at=prepared.taken.at,
        camera=prepared.taken.camera,
        metadata=photo.metadata,
    )
