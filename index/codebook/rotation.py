"""The fixed random rotation in front of RaBitQ, whose bits must each carry as much as another.

Letters: D embedding, n rows.
"""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from index.errors import IndexFolderError

_DTYPE = np.dtype("<f4")
_ALIKE_ROWS = 256


def needs_rotation(factory: str) -> bool:
    """Whether rows and queries are rotated for this faiss string."""
    return factory.endswith(",RaBitQ")


class Rotation:
    """An orthogonal matrix fp32 [D, D]; with none, rows stay as they are."""

    def __init__(self, matrix: NDArray[np.float32] | None = None) -> None:
        self._matrix = matrix

    @classmethod
    def random(cls, dim: int, *, seed: int) -> Self:
        """One drawn evenly from all rotations; the same for the same seed."""
        normal = np.random.default_rng(seed).normal(size=(dim, dim))
        orthogonal, triangle = np.linalg.qr(normal)
        # Without the signs of the triangle some rotations would be drawn more often.
        return cls((orthogonal * np.sign(np.diag(triangle))).astype(_DTYPE))

    @classmethod
    def open(cls, path: Path, *, dim: int) -> Self:
        """Read a codebook's, none without a file; raises IndexFolderError for a cut one."""
        if not path.exists():
            return cls()
        values = np.fromfile(path, dtype=_DTYPE)
        if len(values) != dim * dim:
            raise IndexFolderError(
                f"{path}: damaged, {values.nbytes} bytes instead of {dim * dim * _DTYPE.itemsize}"
            )
        return cls(values.reshape(dim, dim))

    def write(self, path: Path) -> None:
        """Write the matrix as little-endian rows without a header; no file where there is none."""
        if self._matrix is not None:
            path.write_bytes(self._matrix.astype(_DTYPE).tobytes())

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate fp32 rows [n, D]; inner products stay."""
        return rows if self._matrix is None else _product(rows, self._matrix)

    def apply_alike(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same, a row to the same bits whichever rows stand beside it.

        Codes are copied from shard to shard, and made again from rows that lie elsewhere.
        """
        return rows if self._matrix is None else _product_alike(rows, self._matrix)

    def undo(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate fp32 rows [n, D] back."""
        return rows if self._matrix is None else _product(rows, self._matrix.T)


def _product(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows @ matrix, dtype=np.float32)


def _product_alike(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    # A product of one shape takes one path, at every row. Not numpy's: OpenBLAS 0.3 adds up the
    # last rows of a tile in another order on some processors, whatever the shape.
    turned, block = torch.from_numpy(matrix), torch.zeros(_ALIKE_ROWS, rows.shape[1])
    rotated = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), _ALIKE_ROWS):
        part = rows[start : start + _ALIKE_ROWS]
        block[: len(part)] = torch.from_numpy(part)
        rotated[start : start + len(part)] = (block @ turned)[: len(part)].numpy()
    return rotated
