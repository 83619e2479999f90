"""Rows that behave like embeddings of photos, and folders of files that stand for them.

D embedding, n rows, Q queries.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multigrain.photo import PhotoError
from multigrain.prepared import Prepared
from multigrain.transforms import Preprocessing

DIM = 512
RANK = 256
CLASSES = 200
VIEWS_PER_INSTANCE = 3
DECAY = 0.7  # of the spectrum: the deviation of direction i is i ** -DECAY
_BLOCK_ROWS = 65_536
_NUMBER_BYTES = 8
_EDIT_SHARE = 0.13  # of a difference of length sqrt(2): a view's cosine is .983
INSTANCE_SHARE, VIEW_SHARE = 0.5, 0.15  # deviations beside a class's


class Views(NamedTuple):
    """Unit rows fp32 [n, D], one class after the other, and unit views of them [Q, D]."""

    rows: NDArray[np.float32]
    queries: NDArray[np.float32]


def synthetic_views(
    num_rows: int, *, num_queries: int, seed: int = 0, file: Path | None = None
) -> Views:
    """Classes of instances of a few views each; queries are other views of stored instances.

    With `file` the rows lie there and are mapped, so that they take no anonymous memory.
    """
    draw = np.random.default_rng(seed)
    spectrum = np.arange(1, RANK + 1, dtype=np.float32) ** -DECAY
    num_instances = -(-num_rows // VIEWS_PER_INSTANCE)
    classes = draw.standard_normal((CLASSES, RANK), dtype=np.float32)
    of_class = np.arange(num_instances) * CLASSES // num_instances
    instances = classes[of_class] + INSTANCE_SHARE * draw.standard_normal(
        (num_instances, RANK), dtype=np.float32
    )
    basis = np.linalg.qr(draw.standard_normal((DIM, RANK)))[0].T.astype(np.float32)

    def views_of(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        noise = draw.standard_normal((len(chosen), RANK), dtype=np.float32)
        rows = ((instances[chosen] + VIEW_SHARE * noise) * spectrum) @ basis
        found: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found

    rows = _empty((num_rows, DIM), file)
    for start in range(0, num_rows, _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        block[:] = views_of(np.arange(start, start + len(block)) // VIEWS_PER_INSTANCE)
    return Views(rows, views_of(np.sort(draw.choice(num_instances, num_queries, replace=False))))


def _empty(shape: tuple[int, int], file: Path | None) -> NDArray[np.float32]:
    return (
        np.empty(shape, np.float32) if file is None else np.memmap(file, np.float32, "w+", 0, shape)
    )


class FileEmbedder:
    """Takes files that hold a row for photos, so that only the index's own work is measured."""

    dim = DIM
    fingerprint = sha256(b"rows in files").hexdigest()
    device = "cpu"
    engine = "none"
    precision = "fp32"
    preprocessing = Preprocessing()

    def read(self, source: bytes | Path) -> Prepared:
        """Take the row's bytes for pixels."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        return Prepared(np.frombuffer(data, np.uint8), 1, 1, "ROW", exif_rotated=False)

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """There is no photo to edit: searches are tuned with held-out rows instead."""
        del source, kind, seed
        raise PhotoError("image_undecodable", "a row is no photo")

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Give the rows back."""
        del batch_size
        return np.stack([one.view(np.float32) for one in pixels])


class NumberEmbedder(FileEmbedder):
    """Takes files that hold the number of a row of a mapped file, for collections of many."""

    fingerprint = sha256(b"numbers in files").hexdigest()

    def __init__(self, rows: Path) -> None:
        self._rows = np.memmap(rows, np.float32, "r").reshape(-1, DIM)

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Look the rows up."""
        del batch_size
        found = self._rows[[int(one[:_NUMBER_BYTES].tobytes()) for one in pixels]]
        for row, one in zip(found, pixels, strict=True):
            if len(one) > _NUMBER_BYTES:
                self._edit(row, seed=int(one[_NUMBER_BYTES:].tobytes()))
        return found

    def _edit(self, row: NDArray[np.float32], *, seed: int) -> None:
        """Move a row as far as a view lies from its photo, along the difference of two others."""
        first, second = np.random.default_rng(seed).choice(len(self._rows), 2)
        row += _EDIT_SHARE * (self._rows[first] - self._rows[second])
        row /= np.linalg.norm(row)

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """Take the number's bytes, and the seed's, for pixels."""
        del kind
        data = source if isinstance(source, bytes) else source.read_bytes()
        pixels = np.frombuffer(data + b"%d" % seed, np.uint8)
        return Prepared(pixels, 1, 1, "NUMBER", exif_rotated=False)


def write_numbers(folder: Path, num_files: int) -> Path:
    """A folder of folders of a thousand files; number i, in scan order, holds eight digits of i."""
    for number in range(num_files):
        inside = folder / f"{number // 1000:06d}"
        if number % 1000 == 0:
            inside.mkdir(parents=True)
        (inside / f"{number:08d}").write_bytes(b"%08d" % number)
    return folder


def write_rows(folder: Path, rows: NDArray[np.float32], *, order: NDArray[np.int64]) -> Path:
    """A folder whose file number i, in scan order, embeds as rows[order[i]]."""
    folder.mkdir(parents=True)
    for number, row in enumerate(order):
        (folder / f"{number:08d}").write_bytes(rows[row].tobytes())
    return folder
