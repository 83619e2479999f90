"""What Ray's workers do with a block of photos: read it on a CPU, then embed it beside a model.

A row of Ray's is a block: its number, and what is known of it, pickled.
"""

import logging
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from index.collection.known import has_head
from index.collection.meter import Meter, Spent
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder, ReadPhoto, read_photo
from index.embedding.messages import Failed, ModelName, Read, without_pixels
from index.embedding.model_rows import batch_size_on, rows_of
from index.errors import WorkerError
from multigrain.errors import MultiGrainError
from multigrain.locations import Url
from multigrain.prepared import Prepared

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")


# A row of Ray Data's: `number`, and `content`: pending photos, then read ones, then what was said.
Block = dict[str, Any]


class Embedded(NamedTuple):
    """A block's rows fp32 [n, D], one for each photo wanted, and what reading and they took."""

    number: int
    rows: NDArray[np.float32]
    spent: Spent


class _Decoded(NamedTuple):
    """A block's photos with their pixels, and what reading took."""

    photos: Sequence[ReadPhoto]
    spent: Spent

    def told(self, number: int) -> Read:
        """What the desk is told of the block; pixels stay with Ray."""
        return Read(number, [without_pixels(photo) for photo in self.photos])


class Reading(NamedTuple):
    """What reading needs: where folders lie, how to decode, the heads of known hashes by name."""

    bases: Mapping[int, Path | Url]
    read: Callable[[bytes], Prepared]
    known_heads: Any  # a reference to uint64 [n], ascending


def read_block(block: Block, *, desk: Any, reading: Reading) -> Block:
    """Read, hash and decode a block's photos, and tell the desk.

    What goes wrong is told instead, and takes the block's place.
    """
    number = block["number"]
    done = _tried(partial(_read, block["content"], reading))
    told = done if isinstance(done, Failed) else done.told(number)
    ray.get(desk.report.remote(told))
    return {"number": number, "content": pickle.dumps(done, protocol=5)}


def _read(content: bytes, reading: Reading) -> _Decoded:
    heads = ray.get(reading.known_heads).data
    meter = Meter(num_threads=1)
    read = partial(
        read_photo,
        bases=reading.bases,
        read=reading.read,
        content_id=lambda sha256: 0 if has_head(heads, sha256) else None,
        read_file=meter.opening(read_photo_file),
    )
    photos = [meter.reading(read)(photo) for photo in pickle.loads(content)]  # noqa: S301 - our own
    return _Decoded(photos, meter.spent)


class EmbedBlocks:
    """A model in a process of Ray's, which embeds what is wanted of each block."""

    def __init__(
        self, *, desk: Any, open_embedder: Callable[[], PhotoEmbedder], name: ModelName
    ) -> None:
        self._desk, self._name = desk, name
        self._open = lru_cache(open_embedder)

    def __call__(self, block: Block) -> Block:
        """Wait for what is wanted, and embed it, as one process does: to the bit."""
        number = block["number"]
        said = _tried(partial(self._embedded, number, block["content"]))
        return {"number": number, "content": pickle.dumps(said, protocol=5)}

    def _embedded(self, number: int, content: bytes) -> Embedded | Failed:
        decoded: _Decoded | Failed = pickle.loads(content)  # noqa: S301 - our own
        if isinstance(decoded, Failed):
            return decoded
        embedder = self._opened()
        pixels = {one.sha256: one.prepared.pixels for one in decoded.photos if one.prepared}
        hashes = ray.get(self._desk.wanted.remote(number))
        if not all(sha256 in pixels for sha256 in hashes):
            # Read a second time, as a worker had died, and it was another photo by then.
            raise WorkerError("photos changed while they were read; run again to continue")
        meter = Meter(num_threads=1)
        embed = partial(embedder.embed_pixels, batch_size=batch_size_on(embedder.device))
        rows = rows_of(
            [pixels[sha256] for sha256 in hashes], meter.embedding(embed), dim=embedder.dim
        )
        return Embedded(number, rows, decoded.spent._replace(embedding=meter.spent.embedding))

    def _opened(self) -> PhotoEmbedder:
        embedder = self._open()
        found = ModelName.of(embedder)
        if found != self._name:
            raise WorkerError(
                f"runs {' '.join(found)}, the build {' '.join(self._name)}: "
                "give all of them the same checkpoint and the same packages"
            )
        return embedder


def _tried(work: Callable[[], Result]) -> Result | Failed:
    """What it gives, or what goes wrong: Ray keeps no more of an error than its name."""
    try:
        return work()
    except MultiGrainError as error:
        return _failed(str(error))
    except Exception as error:
        _logger.exception("a block cannot be read or embedded")
        return _failed(f"{type(error).__name__}: {error}")


def _failed(reason: str) -> Failed:
    return Failed(f"Ray's worker on {socket.gethostname()}: {reason}")
