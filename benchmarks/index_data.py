"""Rows that behave like embeddings of photos, and folders of files that stand for them.

D embedding, n rows, Q queries.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multigrain.embedder import Prepared
from multigrain.photo import PhotoError
from multigrain.transforms import Preprocessing

DIM = 512
RANK = 256
CLASSES = 200
VIEWS_PER_INSTANCE = 3
DECAY = 0.7  # of the spectrum: the deviation of direction i is i ** -DECAY
INSTANCE_SHARE, VIEW_SHARE = 0.5, 0.15  # deviations beside a class's


class Views(NamedTuple):
    """Unit rows fp32 [n, D], one class after the other, and unit views of them [Q, D]."""

    rows: NDArray[np.float32]
    queries: NDArray[np.float32]


def synthetic_views(num_rows: int, *, num_queries: int, seed: int = 0) -> Views:
    """Classes of instances of a few views each; queries are other views of stored instances."""
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

    rows = views_of(np.arange(num_rows) // VIEWS_PER_INSTANCE)
    return Views(rows, views_of(np.sort(draw.choice(num_instances, num_queries, replace=False))))


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


def write_rows(folder: Path, rows: NDArray[np.float32], *, order: NDArray[np.int64]) -> Path:
    """A folder whose file number i, in scan order, embeds as rows[order[i]]."""
    folder.mkdir(parents=True)
    for number, row in enumerate(order):
        (folder / f"{number:08d}").write_bytes(rows[row].tobytes())
    return folder
