"""Embeddings kept on the disk, by checkpoint and picture, so that a second run is quick.

A folder for each checkpoint, engine and precision. In it pairs of files: `*.keys.npy`
uint8 [n, 32] and `*.vectors.npy` float32 [n, D]; the keys are written last.
"""

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from multigrain.files import write_via_temporary

_KEY_BYTES = 32
_FLUSH_ROWS = 8192

Vector = npt.NDArray[np.float32]


class EmbeddingCache:
    """The embeddings of one model; each process adds files of its own. `get` is thread-safe."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._kept: dict[bytes, Vector] = {}
        self._new: list[tuple[bytes, Vector]] = []

    @classmethod
    def open(cls, folder: Path, *, dim: int) -> Self:
        """Open the folder, which need not be there; files of another dimension are passed over."""
        cache = cls(folder, dim)
        for file in sorted(folder.glob("*.keys.npy")):
            keys = np.load(file)
            vectors = np.load(_vectors_file(file), mmap_mode="r")
            if vectors.shape == (len(keys), dim):
                cache._kept |= {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}
        return cache

    def get(self, key: bytes) -> Vector | None:
        """The vector of a key [D], or None."""
        return self._kept.get(key)

    def put(self, keys: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Add vectors [n, D]; they are on the disk after `flush`, or earlier."""
        self._new += zip(keys, vectors, strict=True)
        if len(self._new) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added; raises OSError."""
        if not self._new:
            return
        keys = np.frombuffer(b"".join(key for key, _ in self._new), np.uint8)
        file = self._folder / f"{secrets.token_hex(8)}.keys.npy"
        for path, rows in (
            (_vectors_file(file), np.stack([vector for _, vector in self._new])),
            (file, keys.reshape(-1, _KEY_BYTES)),
        ):
            with write_via_temporary(path) as temporary, temporary.open("wb") as opened:
                np.save(opened, rows)
        self._new.clear()


def cache_key(data: bytes, edit: str) -> bytes:
    """SHA-256 of a file's bytes and of what is done to the photo before it is embedded."""
    return hashlib.sha256(hashlib.sha256(data).digest() + edit.encode()).digest()


def _vectors_file(keys_file: Path) -> Path:
    return keys_file.with_name(keys_file.name.replace(".keys.", ".vectors."))
