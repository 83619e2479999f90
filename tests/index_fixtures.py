"""A stub model and drawn photos, small enough to build an index in milliseconds."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.builder import BuildReport, build_index
from multigrain.embedder import EmbeddingError
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


def photo_bytes(seed: int, *, side: int = 16) -> bytes:
    """A PNG of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return png_of(Image.fromarray(pixels))


def png_of(image: Image.Image) -> bytes:
    """An image as PNG bytes."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_photos(folder: Path, seeds: Sequence[int]) -> Path:
    """A folder of drawn photos, `0003.png` of seed 3 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed:04d}.png").write_bytes(photo_bytes(seed))
    return folder


def build(
    photos: Path | Sequence[Path], out: Path, embedder: StubEmbedder | None = None, **options: Any
) -> BuildReport:
    """Build with the stub model; its checkpoint file is any file."""
    checkpoint = out.parent / "stub.safetensors"
    if not checkpoint.exists():
        checkpoint.write_bytes(b"stub")
    sources = [photos] if isinstance(photos, Path) else photos
    options.setdefault("decode_threads", 2)
    return build_index(sources, checkpoint, out, embedder or StubEmbedder(), **options)


class Killed:
    """What a kill at each durable action of a build leaves: a copy of its folder.

    Nothing in the process dies, so nothing of it is tidied up: what is not yet written to a file
    is lost, temporary files and the journal's log stay.
    """

    def __init__(self, out: Path, copies: Path) -> None:
        self.actions = list[str]()
        self._out, self._copies = out, copies

    def __call__(self, action: str) -> None:
        """Copy the folder as it is at an action."""
        self.actions.append(action)
        shutil.copytree(self._out, self.at(len(self.actions)))

    def at(self, step: int) -> Path:
        """The copy made at a step, counted from 1."""
        return self._copies / f"{step}"

    def steps(self) -> Iterator[int]:
        """The steps at which the folder is not what it was at the step before."""
        before: dict[str, bytes] | None = None
        for step in range(1, len(self.actions) + 1):
            now = files_of(self.at(step))
            if now != before:
                yield step
            before = now


def files_of(root: Path) -> dict[str, bytes]:
    """Every file of a folder and what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def touch_later(path: Path) -> None:
    """Move a file's modification time, as an edit does."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def durable_state(root: Path) -> dict[str, bytes]:
    """What must be equal after any interruption: shards, codebooks, live bitmaps."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in ("shards", "codebooks", "tombstones")
        for path in sorted((root / name).rglob("*"))
        if path.is_file()
    }


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


def write_vectors(folder: Path, vectors: NDArray[np.float32]) -> Path:
    """A folder whose file `000003` embeds as vectors[3]; equal vectors differ in their salt."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, vector in enumerate(vectors):
        (folder / f"{number:06d}").write_bytes(vector.tobytes() + str(number).encode())
    return folder


def random_units(num_rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Random unit rows, fp32 [n, DIM]."""
    rows = np.random.default_rng(seed).normal(size=(num_rows, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact_neighbours(
    rows: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> list[tuple[int, float]]:
    """Ids and cosines of the k nearest of the rows as the store holds them; ties by id."""
    stored = rows.astype(np.float16).astype(np.float64)
    unit = (query / np.linalg.norm(query.astype(np.float64))).astype(np.float32)
    cosines = (stored @ unit / np.linalg.norm(stored, axis=1)).astype(np.float32)
    order = np.lexsort((np.arange(len(rows)), -cosines))[:k]
    return [(int(i), float(cosines[i])) for i in order]
