"""Photos to unit vectors: the one way trainer's evaluation, index and service embed."""

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from multigrain.cache_folder import default_cache_dir
from multigrain.checkpoint import Checkpoint, load_checkpoint
from multigrain.cpus import num_cpus
from multigrain.document import Document
from multigrain.engine import (
    DeviceMemoryError,
    Engine,
    open_engine,
    resolve_device,
)
from multigrain.errors import EmbeddingError
from multigrain.photo import open_photo
from multigrain.photo_limits import DEFAULT_LIMITS, PhotoLimits
from multigrain.prepared import Prepared, prepared, read_prepared
from multigrain.transforms import Pixels, Preprocessing
from multigrain.views import edited_view

logger = logging.getLogger(__name__)

Embeddings = npt.NDArray[np.float32]  # [N, D], unit rows


class Embedder:
    """A checkpoint on an engine.

    `read` and `read_view` may be called from many threads, `embed_pixels` and `embed` from one
    at a time.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine, *, device: str) -> None:
        self.document: Document = checkpoint.document
        self.fingerprint = checkpoint.fingerprint
        self.device = device
        self.engine = engine.name
        self.precision = engine.precision
        self._engine = engine
        self._whiten = checkpoint.model.whiten
        self._largest_batch = sys.maxsize

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        num_threads: int | None = None,
        cache_dir: Path | None = None,
    ) -> Self:
        """Open a checkpoint file for embedding.

        `device` auto, cpu, cuda or cuda:N; `engine` auto, openvino or torch; `precision`
        auto, bf16 or fp32; `num_threads` of the model on a CPU (default: all);  `cache_dir`
        for converted models (default: the user's cache folder). Raises CheckpointError and
        DeviceError.
        """
        device = resolve_device(device)
        checkpoint = load_checkpoint(path)
        opened = open_engine(
            checkpoint,
            device=device,
            engine=engine,
            precision=precision,
            num_threads=num_threads or num_cpus(),
            cache_dir=cache_dir or default_cache_dir(os.environ),
        )
        return cls(checkpoint, opened, device=device)

    @property
    def dim(self) -> int:
        """D, the number of dimensions of an embedding."""
        return self.document.embedding.dim

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule by which photos are prepared."""
        return self.document.preprocessing

    def read(self, source: bytes | Path, limits: PhotoLimits = DEFAULT_LIMITS) -> Prepared:
        """Decode and prepare one photo; raises PhotoError."""
        return read_prepared(source, self.preprocessing, limits)

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """Decode a photo and prepare an edited view of it, as multigrain.views makes them.

        Raises PhotoError and ViewError.
        """
        photo = open_photo(source, min_side=self.preprocessing.min_side)
        view = edited_view(photo.image, kind=kind, seed=seed)
        return prepared(photo._replace(image=view), self.preprocessing)

    def embed_pixels(self, pixels: Sequence[Pixels], batch_size: int = 8) -> Embeddings:
        """Prepared pixels, of any of the rule's shapes, -> unit float32 [N, D] in their order.

        Photos of one shape share a forward pass. Where the device's memory does not take
        `batch_size` of them, this and later calls take half as many, and half again. Raises
        EmbeddingError naming the positions whose embedding is not finite, and DeviceMemoryError
        when not even one photo fits.
        """
        rows_of_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, array in enumerate(pixels):
            rows_of_shape[array.shape].append(row)
        pooled = np.empty((len(pixels), self.document.reduced_dim), np.float32)
        for rows in rows_of_shape.values():
            start = 0
            while start < len(rows):
                batch = rows[start : start + min(batch_size, self._largest_batch)]
                found = self._infer(np.stack([pixels[row] for row in batch]))
                if found is not None:
                    pooled[batch] = found
                    start += len(batch)
        return self._checked(self._whitened(pooled))

    def embed(self, photos: Sequence[bytes | Path | Image.Image]) -> Embeddings:
        """Photos (bytes, paths or upright RGB images) -> unit float32 [N, D] in their order.

        Raises PhotoError for the first photo that cannot be read.
        """
        return self.embed_pixels(
            [
                self.preprocessing.prepare(photo)
                if isinstance(photo, Image.Image)
                else self.read(photo).pixels
                for photo in photos
            ]
        )

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Run each batch size in each shape once, so that no request pays for a first time."""
        for shape in self.preprocessing.shapes():
            for size in batch_sizes:
                self._engine.infer(np.zeros((size, *shape, 3), np.uint8))

    def _infer(self, batch: Pixels) -> Embeddings | None:
        """Pixels of one shape -> unit [N, E]; None, and smaller batches, where memory ran out."""
        try:
            return self._engine.infer(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise DeviceMemoryError(
                    f"{self.device} is out of memory for a single photo: end what else runs on "
                    "it, or choose --device cpu"
                ) from error
            self._largest_batch = len(batch) // 2
        # Behind the handler, whose traceback holds what the engine had made so far.
        logger.warning(
            "%s is out of memory with %d photos at once: going on with %d",
            self.device,
            len(batch),
            self._largest_batch,
        )
        torch.cuda.empty_cache()
        return None

    def _whitened(self, pooled: Embeddings) -> Embeddings:
        if self._whiten is None:
            return pooled
        with torch.inference_mode():
            white: Embeddings = self._whiten(torch.from_numpy(pooled)).numpy()
        return white

    @staticmethod
    def _checked(embeddings: Embeddings) -> Embeddings:
        norms = np.linalg.norm(embeddings, axis=1)
        bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # noqa: PLR2004 - NaN fails it too
        if len(bad):
            raise EmbeddingError(
                f"the model gave no unit vector for photos {bad[:10].tolist()} of this batch"
            )
        return embeddings
