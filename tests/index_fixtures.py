"""Drawn photos, and indexes of them by a stub model, built in milliseconds."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from stub_embedder import DIM, StubEmbedder

from index.build_report import BuildReport
from index.builder import BuildOptions, build_index


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


def write_mixed(folder: Path, num_photos: int, *, copied: Sequence[int]) -> Path:
    """So many photos with copies near and far, two that are none, and one no model takes."""
    write_photos(folder, range(num_photos))
    for number in copied:
        (folder / f"{number:04d}-copy.png").write_bytes(photo_bytes(number))
        (folder / f"{num_photos - 1 - number:04d}-far.png").write_bytes(photo_bytes(number))
    for number in (7, 90):
        (folder / f"{number:04d}-bad.png").write_bytes(b"no photo")
    (folder / "0050-red.png").write_bytes(png_of(Image.new("RGB", (9, 9), "red")))
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
    return build_index(
        sources, checkpoint, out, embedder or StubEmbedder(), BuildOptions(**options)
    )


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
