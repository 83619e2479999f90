"""A process that embeds for a build: reads the blocks it is dealt, embeds what is wanted of them.

Photos are read and decoded ahead of the model, and stay here; only hashes and rows are sent.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from threading import Lock
from typing import ParamSpec

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.known import has_head
from index.collection.meter import Meter
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder, ReadPhoto, read_photo
from index.embedding.messages import (
    Begin,
    Deal,
    End,
    Failed,
    FromWorker,
    Read,
    Rows,
    Wanted,
    without_pixels,
)
from index.embedding.model_rows import batch_size_on, rows_of
from multigrain.errors import MultiGrainError

EXIT_ALONE = 1
# Handing photos to a thread costs a tenth of a millisecond.
_HANDFUL = 4
_logger = logging.getLogger(__name__)
Given = ParamSpec("Given")


class Worker:
    """Serves the process that builds, over a connection, until that ends."""

    def __init__(
        self, connection: Connection, embedder: PhotoEmbedder, *, num_threads: int
    ) -> None:
        self._connection, self._sending = connection, Lock()
        self._embedder, self._num_threads = embedder, num_threads
        self._batch_size = batch_size_on(embedder.device)
        self._meter = Meter(num_threads=num_threads)
        self._read: Callable[[PendingPhoto], ReadPhoto]
        self._blocks: dict[int, list[ReadPhoto]] = {}
        self._readers = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._model = ThreadPoolExecutor(1, thread_name_prefix="model")

    def serve(self) -> int:
        """Do what the messages say; gives the exit status of the build, 1 where that vanished."""
        try:
            while True:
                # Never busy, so that the other end is never kept from sending.
                message = self._connection.recv()
                if isinstance(message, End):
                    return message.status
                self._take(message)
        except (EOFError, OSError):
            return EXIT_ALONE
        finally:
            for pool in (self._readers, self._reporter, self._model):
                pool.shutdown(cancel_futures=True)

    def _take(self, message: Begin | Deal | Wanted) -> None:
        match message:
            case Begin():
                self._begin(message)
            case Deal(number, photos):
                parts = [photos[at : at + _HANDFUL] for at in range(0, len(photos), _HANDFUL)]
                read = [self._readers.submit(_all, self._read, part) for part in parts]
                self._reporter.submit(self._guarded, self._report, number, read)
            case Wanted(number, are_wanted):
                self._model.submit(self._guarded, self._embed, number, are_wanted)

    def _begin(self, message: Begin) -> None:
        heads = message.known_heads.data
        self._meter = Meter(num_threads=self._num_threads)
        read = partial(
            read_photo,
            bases=message.bases,
            read=self._embedder.read,
            content_id=lambda sha256: 0 if has_head(heads, sha256) else None,
            read_file=self._meter.opening(read_photo_file),
        )
        self._read = self._meter.reading(read)

    def _report(self, number: int, read: Sequence[Future[list[ReadPhoto]]]) -> None:
        photos = [photo for part in read for photo in part.result()]
        self._blocks[number] = photos
        self._send(Read(number, [without_pixels(photo) for photo in photos]))

    def _embed(self, number: int, are_wanted: Sequence[bool]) -> None:
        both = zip(self._blocks.pop(number), are_wanted, strict=True)
        pixels = [
            photo.prepared.pixels for photo, is_wanted in both if is_wanted and photo.prepared
        ]
        rows = rows_of(pixels, self._timed_embed, dim=self._embedder.dim)
        self._send(Rows(number, rows, self._meter.spent))

    def _timed_embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        embed = partial(self._embedder.embed_pixels, batch_size=self._batch_size)
        return self._meter.embedding(embed)(pixels)

    def _guarded(
        self, work: Callable[Given, None], *args: Given.args, **kwargs: Given.kwargs
    ) -> None:
        """Do it, or say why not: nobody looks at what a thread raises."""
        try:
            work(*args, **kwargs)
        except CancelledError:  # the build is over
            return
        except MultiGrainError as error:
            self._send(Failed(str(error)))
        except Exception as error:
            _logger.exception("a block cannot be embedded")
            self._send(Failed(f"{type(error).__name__}: {error}"))

    def _send(self, message: FromWorker) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            # The build is gone, which `serve` finds out, or has found out.
            _logger.debug("nobody takes %s", type(message).__name__)


def _all(
    read: Callable[[PendingPhoto], ReadPhoto], photos: Sequence[PendingPhoto]
) -> list[ReadPhoto]:
    return [read(photo) for photo in photos]
