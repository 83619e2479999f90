"""A build's own process reads and embeds: threads read ahead of the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.meter import Meter
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder, ReadPhoto, read_photo
from index.embedding.blocks import Claim, EmbeddedBlock
from index.embedding.model_rows import BATCHES_PER_BLOCK, batch_size_on, rows_of
from multigrain.ahead import in_order
from multigrain.locations import Url


class OwnThreads:
    """Threads that read photos in scan order, and the loop that embeds each block of them."""

    def __init__(
        self,
        embedder: PhotoEmbedder,
        bases: Mapping[int, Path | Url],
        *,
        content_id: Callable[[bytes], int | None],
        num_threads: int,
    ) -> None:
        batch_size = batch_size_on(embedder.device)
        self._meter = Meter(num_threads=num_threads)
        self._num_threads, self._dim = num_threads, embedder.dim
        self._window = BATCHES_PER_BLOCK * batch_size + 2 * num_threads
        self._read = partial(
            read_photo,
            bases=bases,
            read=embedder.read,
            content_id=content_id,
            read_file=self._meter.opening(read_photo_file),
        )
        embed = partial(embedder.embed_pixels, batch_size=batch_size)
        self._embed = self._meter.embedding(embed)

    def limit(self) -> str:
        """What the rest waits for: `decode`, `model` or `disk`."""
        return self._meter.limit()

    @property
    def num_bytes(self) -> int:
        """Bytes read."""
        return self._meter.num_bytes

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._meter.seconds

    def embedded(
        self, blocks: Iterable[Sequence[PendingPhoto]], claim: Claim
    ) -> Iterator[EmbeddedBlock]:
        """The blocks in their order; each is settled before the next one is asked for."""
        sizes, block = deque[int](), list[ReadPhoto]()
        photos = in_order(
            self._meter.reading(self._read),
            _flat(blocks, sizes),
            num_threads=self._num_threads,
            window=self._window,
        )
        for photo in self._meter.taking(photos):
            block.append(photo)
            if len(block) == sizes[0]:
                sizes.popleft()
                yield self._embedded(block, claim(block))
                block = []

    def _embedded(self, block: list[ReadPhoto], are_wanted: list[bool]) -> EmbeddedBlock:
        both = zip(block, are_wanted, strict=True)
        pixels = [_pixels(photo) for photo, is_wanted in both if is_wanted]
        return EmbeddedBlock(block, are_wanted, rows_of(pixels, self._embed, dim=self._dim))


def _flat(blocks: Iterable[Sequence[PendingPhoto]], sizes: deque[int]) -> Iterator[PendingPhoto]:
    """The photos of the blocks, whose sizes are noted."""
    for block in blocks:
        sizes.append(len(block))
        yield from block


def _pixels(photo: ReadPhoto) -> NDArray[np.uint8]:
    assert photo.prepared is not None
    return photo.prepared.pixels
