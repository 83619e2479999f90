"""One embedding of several looks at a photo: mirrored, and at several sizes.

Each look goes through the whole model, whitening included; the unit vectors' mean is scaled to
unit length. Letters: N photos, D embedding.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np

from multigrain.embedder import EmbeddingError, Embeddings
from multigrain.photo import open_photo
from multigrain.transforms import Pixels, Preprocessing

# Sides of half, the same and twice the area, as in Radenovic and others.
MULTI_SCALE = (0.5**0.5, 1.0, 2**0.5)
_STRIDE = 32


class Augment(StrEnum):
    """What else of a query photo is looked at."""

    NONE = "none"
    FLIP = "flip"


class PixelEmbedder(Protocol):
    """What is needed of multigrain.embedder.Embedder."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule by which photos are prepared."""

    def embed_pixels(self, pixels: Sequence[Pixels], batch_size: int = 8) -> Embeddings:
        """Unit rows float32 [N, D] of prepared pixels, in order."""


def embed_augmented(
    embedder: PixelEmbedder,
    photos: Sequence[bytes | Path],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Embeddings:
    """Photos -> unit float32 [N, D] of all their looks; raises PhotoError and EmbeddingError."""
    rules = [scaled(embedder.preprocessing, scale) for scale in scales]
    min_side = max(rule.min_side for rule in rules)
    looks: list[list[Pixels]] = [[] for _ in range(len(rules) * (1 + flip))]
    for photo in photos:
        image = open_photo(photo, min_side=min_side).image
        plain = [rule.prepare(image) for rule in rules]
        both = plain + [mirrored(pixels) for pixels in plain] if flip else plain
        for look, pixels in zip(looks, both, strict=True):
            look.append(pixels)
    return mean_embedding([embedder.embed_pixels(look) for look in looks])


def scaled(rule: Preprocessing, scale: float) -> Preprocessing:
    """The rule at another size, of the same remainder to the trunk's stride."""
    steps = max(1, round(rule.size * (scale - 1) / _STRIDE) + rule.size // _STRIDE)
    return rule.model_copy(update={"size": steps * _STRIDE + rule.size % _STRIDE})


def mirrored(pixels: Pixels) -> Pixels:
    """Left and right exchanged: uint8 [height, width, 3], contiguous."""
    return np.ascontiguousarray(pixels[:, ::-1])


def mean_embedding(looks: Sequence[Embeddings]) -> Embeddings:
    """The unit mean of unit embeddings of the same photos, each [N, D].

    Raises EmbeddingError for looks that cancel out.
    """
    mean = np.mean(looks, axis=0, dtype=np.float32)
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise EmbeddingError("a photo's looks cancel out: the model gives opposite vectors")
    unit: Embeddings = mean / norms
    return unit
