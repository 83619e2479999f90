"""Random views of a photo for training; every view is a function of its counters alone."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.seeds import seed_of

# Eigenvectors (columns) and eigenvalues of RGB over ImageNet, pixels in 0..1
# (Krizhevsky et al. 2012, section 4.1; the constants in common use since fb.resnet.torch).
_RGB_DIRECTIONS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
    np.float32,
)
_RGB_VARIANCES = np.array([0.2175, 0.0188, 0.0045], np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CROP_ATTEMPTS = 10

Floats = npt.NDArray[np.float32]


class Augmentation(NamedTuple):
    """How views differ: the paper's `full` augmentation (MultiGrain, section 4.1)."""

    size: int  # side of a view, pixels
    seed: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: float = 0.3  # of brightness, contrast and saturation
    lighting: float = 0.1  # deviation along the RGB directions


def random_view(
    image: Image.Image, augmentation: Augmentation, *, epoch: int, photo_id: int, view: int
) -> npt.NDArray[np.uint8]:
    """Return one view of an RGB image, uint8 [size, size, 3].

    Equal arguments give equal views, whichever worker or process makes them.
    """
    rng = np.random.default_rng(seed_of(augmentation.seed, "view", epoch, photo_id, view))
    box = _random_box(*image.size, augmentation, rng)
    side = (augmentation.size, augmentation.size)
    cropped = image.resize(side, Image.Resampling.BILINEAR, box=box)
    if rng.uniform() < 0.5:  # noqa: PLR2004 - a coin
        cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels: Floats = np.asarray(cropped, np.float32) / np.float32(255)
    pixels = _jittered(pixels, augmentation.jitter, rng)
    shifts = rng.normal(0, augmentation.lighting, size=3).astype(np.float32)
    pixels = pixels + _RGB_DIRECTIONS @ (shifts * _RGB_VARIANCES)
    return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _random_box(
    width: int, height: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of a random part; the central part if none fits."""
    low, high = (math.log(value) for value in augmentation.aspect)
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*augmentation.area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return (left, top, left + w, top + h)
    w = min(width, height * augmentation.aspect[1])
    h = min(height, width / augmentation.aspect[0])
    left, top = (width - w) / 2, (height - h) / 2
    return (left, top, left + w, top + h)


def _jittered(pixels: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Change brightness, contrast and saturation in random order; pixels in 0..1."""
    factors = rng.uniform(1 - strength, 1 + strength, size=3).astype(np.float32)
    for kind in rng.permutation(3):
        factor = factors[kind]
        match kind:
            case 0:
                pixels = pixels * factor
            case 1:
                mean = (pixels @ _LUMA).mean()
                pixels = mean + (pixels - mean) * factor
            case _:
                grey = (pixels @ _LUMA)[..., None]
                pixels = grey + (pixels - grey) * factor
    return pixels
