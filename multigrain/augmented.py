"""One embedding of several looks at a photo: mirrored, and at several sizes.

Each look goes through the whole model, whitening included; the unit vectors' mean is scaled to
unit length. Letters: N photos, D embedding.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from multigrain.embedder import Embeddings
from multigrain.errors import EmbeddingError
from multigrain.photo import open_photo
from multigrain.transforms import Pixels, Preprocessing

# Sides of half, the same and twice the area, as in Radenovic and others.
MULTI_SCALE = (0.5**0.5, 1.0, 2**0.5)
_STRIDE = 32


class Augment(StrEnum):
    """What of a photo is looked at beside itself: its mirror image, other sizes, or both."""

    NONE = "none"
    FLIP = "flip"
    MULTISCALE = "multiscale"
    FLIP_MULTISCALE = "flip_multiscale"

    @property
    def is_mirrored(self) -> bool:
        """Whether every look is mirrored, too."""
        return self in (Augment.FLIP, Augment.FLIP_MULTISCALE)

    def rules(self, rule: Preprocessing) -> list[Preprocessing]:
        """The rules of the looks, that of the model first."""
        if self in (Augment.NONE, Augment.FLIP):
            return [rule]
        return [rule, *(scaled(rule, scale) for scale in MULTI_SCALE if scale != 1)]


class PixelEmbedder(Protocol):
    """What is needed of multigrain.embedder.Embedder."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule by which photos are prepared."""

    def embed_pixels(self, pixels: Sequence[Pixels], batch_size: int = 8) -> Embeddings:
        """Unit rows float32 [N, D] of prepared pixels, in order."""


def embed_augmented(
    embedder: PixelEmbedder, photos: Sequence[bytes | Path], augment: Augment = Augment.NONE
) -> Embeddings:
    """Photos -> unit float32 [N, D] of all their looks; raises PhotoError and EmbeddingError."""
    rule = embedder.preprocessing
    min_side = decoded_side(rule, augment)
    found = [looks_at(open_photo(one, min_side=min_side).image, rule, augment) for one in photos]
    return embed_looks(embedder, found)


def decoded_side(rule: Preprocessing, augment: Augment) -> int:
    """The shorter side, in pixels, below which a reduced-scale decode would blur a look."""
    return max(one.min_side for one in augment.rules(rule))


def looks_at(image: Image.Image, rule: Preprocessing, augment: Augment) -> list[Pixels]:
    """The looks at an upright RGB image, that of the model's own rule first."""
    plain = [one.prepare(image) for one in augment.rules(rule)]
    return plain + [mirrored(pixels) for pixels in plain] if augment.is_mirrored else plain


def embed_looks(
    embedder: PixelEmbedder, photos: Sequence[Sequence[Pixels]], *, batch_size: int = 8
) -> Embeddings:
    """Looks at each photo, one at least -> unit float32 [N, D]; looks of one shape go together.

    A photo of one look has that look's embedding, to the bit. Raises EmbeddingError.
    """
    flat = [pixels for looks in photos for pixels in looks]
    rows = embedder.embed_pixels(flat, batch_size=batch_size)
    ends = np.cumsum([len(looks) for looks in photos], dtype=np.int64)
    embeddings = rows[ends - 1]
    for number, own in enumerate(np.split(rows, ends[:-1])):
        if len(own) > 1:
            embeddings[number] = mean_embedding(own[:, None])[0]
    return embeddings


def scaled(rule: Preprocessing, scale: float) -> Preprocessing:
    """The rule at another size, of the same remainder to the trunk's stride."""
    steps = max(1, round(rule.size * (scale - 1) / _STRIDE) + rule.size // _STRIDE)
    return rule.model_copy(update={"size": steps * _STRIDE + rule.size % _STRIDE})


def mirrored(pixels: Pixels) -> Pixels:
    """Left and right exchanged: uint8 [height, width, 3], contiguous."""
    return np.ascontiguousarray(pixels[:, ::-1])


def mean_embedding(looks: Sequence[Embeddings] | Embeddings) -> Embeddings:
    """The unit mean of unit embeddings of the same photos, each [N, D].

    Raises EmbeddingError for looks that cancel out.
    """
    mean = np.mean(looks, axis=0, dtype=np.float32)
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise EmbeddingError("a photo's looks cancel out: the model gives opposite vectors")
    unit: Embeddings = mean / norms
    return unit
