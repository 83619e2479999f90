"""Photos of a list somebody wrote, embedded: each must be there.

Letters: N photos, D embedding.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.collection.reading import PhotoEmbedder
from index.errors import IndexFolderError
from multigrain.ahead import in_order
from multigrain.photo import PhotoError

_BATCH = 8


def embed_files(
    files: Sequence[Path], embedder: PhotoEmbedder, *, num_threads: int
) -> NDArray[np.float32]:
    """Unit rows fp32 [N, D] of photo files, decoded ahead of the model.

    Raises IndexFolderError naming a photo that cannot be read.
    """

    def pixels(file: Path) -> NDArray[np.uint8]:
        try:
            return embedder.read(file.read_bytes()).pixels
        except OSError as error:
            raise IndexFolderError(f"{file}: cannot be read ({error.strerror})") from error
        except PhotoError as error:
            raise IndexFolderError(f"{file}: {error}") from error

    prepared = in_order(pixels, files, num_threads=num_threads, window=4 * _BATCH)
    parts = [np.empty((0, embedder.dim), np.float32)]
    while batch := list(islice(prepared, _BATCH)):
        parts.append(embedder.embed_pixels(batch, _BATCH))
    return np.concatenate(parts)
