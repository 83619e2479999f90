"""Stub models, which processes of an engine import in no time: neither torch nor faiss."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multigrain.errors import EmbeddingError
from multigrain.photo import Photo, open_photo
from multigrain.prepared import Prepared
from multigrain.transforms import Preprocessing
from multigrain.views import VIEW_KINDS, edited_view

DIM = 16
_SIDE = 8
VIEW_NOISE = 0.12  # 16 of them have a norm of about 0.5


class StubEmbedder:
    """The interface of Embedder over a fixed random projection of 8 x 8 pixels."""

    dim = DIM
    device = "cpu"
    engine = "stub"
    precision = "fp32"
    preprocessing = Preprocessing()

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self.fingerprint = fingerprint
        self.num_embedded = 0
        self._projection = np.random.default_rng(7).normal(size=(_SIDE * _SIDE * 3, DIM))

    def read(self, source: bytes | Path) -> Prepared:
        """Decode a photo to 8 x 8 pixels."""
        return _small(open_photo(source))

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """Decode a photo, edit it, and shrink it to 8 x 8 pixels."""
        photo = open_photo(source)
        view = _small(photo._replace(image=edited_view(photo.image, kind=kind, seed=seed)))
        return view._replace(pixels=view.pixels[None])  # views are told by their shape

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Project the pixels; counts those of photos, not those of views."""
        assert batch_size > 0
        self.num_embedded += sum(one.ndim == 3 for one in pixels)
        centred = np.stack(pixels).reshape(len(pixels), -1) / 255 - 0.5
        rows = centred @ self._projection
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _small(photo: Photo) -> Prepared:
    pixels = np.asarray(photo.image.resize((_SIDE, _SIDE)))
    return Prepared(
        pixels, photo.width, photo.height, photo.format, photo.exif_rotated, photo.taken
    )


class BrokenEmbedder(StubEmbedder):
    """Refuses every batch that holds a photo whose first pixel is pure red."""

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Project the pixels, or raise."""
        if any(tuple(one.reshape(-1)[:3]) == (255, 0, 0) for one in pixels):
            raise EmbeddingError("not finite")
        return super().embed_pixels(pixels, batch_size)


class VectorEmbedder(StubEmbedder):
    """Takes files that hold a float32 vector and some salt, so that a test chooses the rows."""

    def read(self, source: bytes | Path) -> Prepared:
        """Take the vector's bytes for pixels."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        pixels = np.frombuffer(data[: DIM * 4], dtype=np.uint8)
        return Prepared(pixels, 1, 1, "VECTOR", exif_rotated=False)

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """A vector at a cosine of about 0.9; the kind of edit does not matter."""
        assert kind in VIEW_KINDS
        stored = self.read(source)
        noise = np.random.default_rng(seed).normal(scale=VIEW_NOISE, size=DIM)
        row = stored.pixels.view(np.float32) + noise.astype(np.float32)
        unit = (row / np.linalg.norm(row)).astype(np.float32)
        return stored._replace(pixels=np.frombuffer(unit.tobytes(), dtype=np.uint8))

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Give the vectors back."""
        assert batch_size > 0
        return np.stack([one.view(np.float32) for one in pixels])


class FatedEmbedder(BrokenEmbedder):
    """Meets its end, once, with the first photos it is to embed."""

    def __init__(self, fate: str, met: Path) -> None:
        super().__init__()
        self._fate, self._met = fate, met

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed, unless it is the first time."""
        if not self._met.exists():
            self._met.touch()
            if self._fate == "memory":
                from multigrain.engine import DeviceMemoryError  # which imports torch

                raise DeviceMemoryError("no room for a single photo")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_pixels(pixels, batch_size)


class FailingRead:
    """Decodes no photo: raises an error that says nothing of it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, source: bytes) -> Prepared:
        """Raise it."""
        del source
        raise self._error
