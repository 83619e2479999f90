"""A photo file read once: hashed, and decoded unless its bytes are known."""

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.photo_file import read_photo_file
from multigrain.locations import Url
from multigrain.photo import PhotoError
from multigrain.photo_limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from multigrain.prepared import Prepared
    from multigrain.transforms import Preprocessing


class PhotoEmbedder(Protocol):
    """What a build needs of multigrain.embedder.Embedder."""

    @property
    def dim(self) -> int:
        """The embedding's dimension D."""

    @property
    def fingerprint(self) -> str:
        """The checkpoint's fingerprint."""

    @property
    def device(self) -> object:
        """Where the model runs; prints as "cpu" or "cuda..."."""

    @property
    def engine(self) -> str:
        """What runs the model."""

    @property
    def precision(self) -> str:
        """The numbers the model runs in."""

    @property
    def preprocessing(self) -> "Preprocessing":
        """How pixels are prepared."""

    def read(self, source: bytes) -> "Prepared":
        """Decode and prepare; any thread; raises PhotoError."""

    def read_view(self, source: bytes, *, kind: str, seed: int) -> "Prepared":
        """Decode, edit as multigrain.views does, and prepare; any thread; raises PhotoError."""

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int
    ) -> NDArray[np.float32]:
        """Unit rows fp32 [N, D] of prepared pixels, in order."""


class ReadPhoto(NamedTuple):
    """A photo's bytes: hash and size, and pixels, or an error, or neither where they are known."""

    photo: PendingPhoto
    sha256: bytes
    num_bytes: int
    prepared: "Prepared | None"
    error: str | None


def read_photo(
    photo: PendingPhoto,
    *,
    bases: Mapping[int, Path | Url],
    read: Callable[[bytes], "Prepared"],
    content_id: Callable[[bytes], int | None],
    read_file: Callable[..., bytes] = read_photo_file,
) -> ReadPhoto:
    """Read, hash and decode a pending photo below its collection's folder.

    Raises ObjectStoreError, where a store gives no answer, and nothing else.
    """
    digest, num_bytes = b"", 0
    try:
        # Not pathlib's "/", which takes longer than opening the file.
        path = os.path.join(bases[photo.collection_id], photo.path)  # noqa: PTH118
        data = read_file(path, max_bytes=DEFAULT_LIMITS.max_bytes)
        digest, num_bytes = sha256(data).digest(), len(data)
        known = content_id(digest) is not None
        prepared = None if known else read(data)
    except PhotoError as error:
        return ReadPhoto(photo, digest, num_bytes, None, _error_text(error.code, digest))
    return ReadPhoto(photo, digest, num_bytes, prepared, None)


def _error_text(code: str, digest: bytes) -> str:
    return f"{code} {digest.hex()}" if digest else code
