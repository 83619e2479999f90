"""Several looks at a photo: which pixels the model sees, and the mean of what it says."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from multigrain.augmented import (
    MULTI_SCALE,
    Augment,
    decoded_side,
    embed_augmented,
    mean_embedding,
    scaled,
)
from multigrain.errors import EmbeddingError
from multigrain.transforms import Preprocessing


class SeenEmbedder:
    """Remembers the pixels it was given; embeds to a fixed projection of 4 x 4 means."""

    preprocessing = Preprocessing(size=97, rule="whole")

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Unit rows of the left and the right half's brightness."""
        del batch_size
        self.seen += pixels
        halves = [(one[:, : one.shape[1] // 2], one[:, one.shape[1] // 2 :]) for one in pixels]
        rows = np.array([[left.mean() + 1, right.mean() + 1] for left, right in halves])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photo(*, mirror: bool = False) -> bytes:
    pixels = np.tile(np.linspace(0, 255, 120, dtype=np.uint8)[None, :, None], (90, 1, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels[:, ::-1] if mirror else pixels).save(stream, "PNG")
    return stream.getvalue()


def test_a_photo_and_its_mirror_image_have_one_flipped_embedding() -> None:
    """Without it they differ."""
    both = [photo(), photo(mirror=True)]
    plain = embed_augmented(SeenEmbedder(), both)
    flipped = embed_augmented(SeenEmbedder(), both, Augment.FLIP)
    assert plain[0] @ plain[1] < 0.9
    assert flipped[0] == pytest.approx(flipped[1], abs=1e-3)
    assert np.linalg.norm(flipped, axis=1) == pytest.approx(1)


@pytest.mark.parametrize("augment", [Augment.MULTISCALE, Augment.FLIP_MULTISCALE])
def test_every_scale_and_where_asked_its_mirror_image_are_looked_at(augment: Augment) -> None:
    """The model's own comes first; sizes keep what they leave when divided by 32."""
    embedder = SeenEmbedder()
    (found,) = embed_augmented(embedder, [photo()], augment)
    rules = [scaled(embedder.preprocessing, scale) for scale in (1.0, MULTI_SCALE[0], 2**0.5)]
    assert [rule.size for rule in rules] == [97, 65, 129]
    shapes = [rule.shape_of(120, 90) for rule in rules]
    num_sides = 1 + augment.is_mirrored
    assert [one.shape[:2] for one in embedder.seen] == num_sides * shapes
    for plain, mirror in zip(embedder.seen, embedder.seen[len(rules) :], strict=False):
        assert (mirror == plain[:, ::-1]).all()
    parts = SeenEmbedder().embed_pixels(embedder.seen)
    assert found == pytest.approx(parts.mean(axis=0) / np.linalg.norm(parts.mean(axis=0)))
    assert decoded_side(embedder.preprocessing, augment) == 129


def test_a_photo_of_one_look_keeps_its_embedding_to_the_bit() -> None:
    """Whether or not an option is there to ask for more."""
    embedder = SeenEmbedder()
    found = embed_augmented(embedder, [photo(), photo(mirror=True)])
    assert (found == SeenEmbedder().embed_pixels(embedder.seen)).all()


def test_looks_that_cancel_out_are_refused() -> None:
    """Opposite vectors have no mean direction."""
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(EmbeddingError, match="cancel out"):
        mean_embedding([rows, -rows])
