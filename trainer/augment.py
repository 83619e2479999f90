"""Random crops of a photo for training; every view is a function of its seed alone."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.augment_draws import uniforms

_CROP_ATTEMPTS = 10
_DRAWS_PER_ATTEMPT = 4

Box = tuple[float, float, float, float]


class Augmentation(NamedTuple):
    """The part of a view's making that needs the whole photo: random resized crop and flip."""

    size: int  # side of a view, pixels
    seed: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)


def random_view(
    image: Image.Image, augmentation: Augmentation, *, seed: int
) -> npt.NDArray[np.uint8]:
    """Return one view of an RGB image, uint8 [size, size, 3]; equal seeds give equal views."""
    num = 1 + _CROP_ATTEMPTS * _DRAWS_PER_ATTEMPT
    coin, *draws = uniforms([seed], "crop", num)[0].tolist()
    box = _random_box(*image.size, augmentation, iter(draws))
    side = (augmentation.size, augmentation.size)
    view = image.resize(side, Image.Resampling.BILINEAR, box=box)
    if coin < 0.5:  # noqa: PLR2004 - a coin
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def _random_box(width: int, height: int, augmentation: Augmentation, draws: Iterator[float]) -> Box:
    """Return (left, top, right, bottom) of a random part; the central part if none fits."""
    least, most = augmentation.area
    low, high = (math.log(value) for value in augmentation.aspect)
    # Four numbers an attempt, also when the first two fail.
    for at_area, at_aspect, at_left, at_top in zip(draws, draws, draws, draws, strict=True):
        area = width * height * (least + (most - least) * at_area)
        aspect = math.exp(low + (high - low) * at_aspect)
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = (width - w) * at_left, (height - h) * at_top
            # Rounding must not carry the box past the edge: Pillow refuses it.
            return (left, top, min(left + w, width), min(top + h, height))
    w = min(width, height * augmentation.aspect[1])
    h = min(height, width / augmentation.aspect[0])
    left, top = (width - w) / 2, (height - h) / 2
    return (left, top, left + w, top + h)
