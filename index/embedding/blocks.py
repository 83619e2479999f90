"""Pending photos in blocks: what is embedded together, whoever embeds it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.reading import PhotoEmbedder, ReadPhoto
from multigrain.locations import Url

# Photos that were tried before do not count, so without it a block had no end.
_MOST_SIZES = 16


class EmbeddedBlock(NamedTuple):
    """A block that was read: which photos were embedded, and a row for each of those, fp32 [n, D].

    Rows are NaN where the model gives no embedding.
    """

    photos: Sequence[ReadPhoto]
    are_wanted: Sequence[bool]
    rows: NDArray[np.float32]

    @property
    def embedded(self) -> list[ReadPhoto]:
        """The photos that have a row, in its order."""
        both = zip(self.photos, self.are_wanted, strict=True)
        return [photo for photo, is_wanted in both if is_wanted]


# Which of a block's photos are to be embedded; blocks are claimed, and settled, in their order.
Claim = Callable[[Sequence[ReadPhoto]], list[bool]]


class BlockEmbedder(Protocol):
    """Reads blocks of photos and embeds what is new of them."""

    def embedded(
        self, blocks: Iterable[Sequence[PendingPhoto]], claim: Claim
    ) -> Iterator[EmbeddedBlock]:
        """The blocks in their order; each is settled before the next one is asked for."""

    def limit(self) -> str:
        """What the rest waits for: `decode`, `model` or `disk`."""

    @property
    def num_bytes(self) -> int:
        """Bytes read."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""


class Work(NamedTuple):
    """What a build's helpers need: its model, and where collections lie (number -> folder).

    `known_heads` are the heads of the hashes that have a row, uint64 [n], ascending.
    """

    embedder: PhotoEmbedder
    bases: Mapping[int, Path | Url]
    known_heads: NDArray[np.uint64]


class AnyCrew(Protocol):
    """Those who embed for a build, where it is not its own process alone."""

    def at_work(self, work: Work) -> AbstractContextManager[BlockEmbedder]:
        """All of them, ready for the photos of the collections; raises WorkerError."""


def blocks_of(
    photos: Iterable[PendingPhoto], size: int, *, every: bool
) -> Iterator[list[PendingPhoto]]:
    """Split photos in scan order, so that a build that goes on meets the blocks it met before.

    A block holds `size` photos. Without `every`, those that failed before, and may again, do not
    count: what is behind a durable block then has its bounds, whatever is tried again before it.
    """
    block, num_counted = list[PendingPhoto](), 0
    for photo in photos:
        is_counted = every or photo.error is None
        if block and is_counted and num_counted == 0:
            yield block
            block = []
        block.append(photo)
        num_counted += is_counted
        if num_counted == size or len(block) == _MOST_SIZES * size:
            yield block
            block, num_counted = [], 0
    if block:
        yield block
