"""What the processes of a build say to each other; see docs/decisions/0016."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.meter import Spent
from index.collection.reading import PhotoEmbedder, ReadPhoto
from multigrain.locations import Url

_NO_PIXELS = np.empty(0, np.uint8)


class ModelName(NamedTuple):
    """What must be the same in every process, so that their rows are of one kind."""

    fingerprint: str
    engine: str
    precision: str

    @classmethod
    def of(cls, embedder: PhotoEmbedder) -> Self:
        """What rows of this model are told by."""
        return cls(embedder.fingerprint, embedder.engine, embedder.precision)


class Hello(NamedTuple):
    """From a worker, first of all: who it is."""

    rank: int
    host: str


class Joined(NamedTuple):
    """From a worker: its model is open, and so many threads read for it."""

    model: ModelName
    num_threads: int


class Begin(NamedTuple):
    """To a worker: folders of the collections, and the heads of the hashes that have a row."""

    bases: Mapping[int, Path | Url]
    known_heads: NDArray[np.uint64]


class Deal(NamedTuple):
    """To a worker: a block to read, hash and decode; it answers with `Read`."""

    number: int
    photos: Sequence[PendingPhoto]


class Read(NamedTuple):
    """From a worker: a block was read; `photos` have no pixels, which stay where they are."""

    number: int
    photos: Sequence[ReadPhoto]


class Wanted(NamedTuple):
    """To a worker: the photos of a block that it is to embed; it answers with `Rows`."""

    number: int
    are_wanted: Sequence[bool]


class Rows(NamedTuple):
    """From a worker: a row for each photo wanted, fp32 [n, D], and what it spent since `Begin`."""

    number: int
    rows: NDArray[np.float32]
    spent: Spent


class Failed(NamedTuple):
    """From a worker: it cannot go on, for this reason."""

    reason: str


class End(NamedTuple):
    """To a worker: the build is over, leave with this exit status."""

    status: int


FromWorker = Hello | Joined | Read | Rows | Failed
ToWorker = ModelName | Begin | Deal | Wanted | End


def without_pixels(photo: ReadPhoto) -> ReadPhoto:
    """A photo as it is reported: its pixels stay where it was read."""
    if photo.prepared is None:
        return photo
    return photo._replace(prepared=photo.prepared._replace(pixels=_NO_PIXELS))
