"""A model that takes a stated time a photo, which Ray's processes import without torch."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multigrain.prepared import Prepared, read_prepared
from multigrain.transforms import Preprocessing

STUB_MS = 4.0
_DIM = 512


class StubEmbedder:
    """Decodes as a ResNet-50 at 224 px needs it, then waits, and projects a few pixels."""

    dim = _DIM
    fingerprint = b"a stub that waits".hex().ljust(64, "0")
    device = "cpu"
    engine = "stub"
    precision = "fp32"
    preprocessing = Preprocessing()

    def read(self, source: bytes | Path) -> Prepared:
        """Decode and prepare."""
        return read_prepared(source, self.preprocessing)

    def read_view(self, source: bytes | Path, *, kind: str, seed: int) -> Prepared:
        """Nothing is tuned."""
        raise NotImplementedError

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Unit rows of a part of the pixels, after the stated time."""
        del batch_size
        time.sleep(STUB_MS / 1e3 * len(pixels))
        rows = np.stack([one.reshape(-1)[:_DIM] for one in pixels]).astype(np.float32) + 1
        found: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found
