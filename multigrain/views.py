"""Edited copies of a photo, fixed by a seed: queries whose right answer is known.

They score copy retrieval on any folder of photos, without labels: an edited copy must find its
original. Each kind is an edit people and platforms make.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from multigrain.errors import MultiGrainError


class ViewError(MultiGrainError):
    """A kind of edited view that does not exist."""


def edited_view(image: Image.Image, *, kind: str, seed: int) -> Image.Image:
    """An edited copy of an RGB image; the same for the same image, kind and seed.

    `kind` is one of VIEW_KINDS, else ViewError. The result is RGB, at least 1 x 1.
    """
    if kind not in _EDITS:
        raise ViewError(f"no view of kind {kind!r}: choose of {', '.join(VIEW_KINDS)}")
    return _EDITS[kind](image, np.random.default_rng(seed))


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Keep 40 to 70 % of the area, anywhere."""
    scale = np.sqrt(random.uniform(0.4, 0.7))
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    left = int(random.integers(0, image.width - width + 1))
    top = int(random.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _rotate(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turn by 5 to 15 degrees either way, the corners filled with grey."""
    angle = random.uniform(5, 15) * random.choice((-1, 1))
    return image.rotate(angle, Image.Resampling.BILINEAR, expand=False, fillcolor=(128, 128, 128))


def _mirror(image: Image.Image, random: np.random.Generator) -> Image.Image:  # noqa: ARG001
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _jpeg(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Encode as JPEG at quality 8 to 20."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(random.integers(8, 21)))
    with Image.open(buffer, formats=("JPEG",)) as opened:
        return opened.convert("RGB")


def _small(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Shrink so that the longer side has 64 to 96 pixels."""
    copy = image.copy()
    side = int(random.integers(64, 97))
    copy.thumbnail((side, side), Image.Resampling.BILINEAR)
    return copy


def _blur(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Gaussian blur of 1 to 2 % of the shorter side."""
    radius = min(image.size) * random.uniform(0.01, 0.02)
    return image.filter(ImageFilter.GaussianBlur(radius))


def _colour(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and saturation by up to 40 %."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(random.uniform(0.6, 1.4))
    return image


def _text(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Write over a band of the photo, as a caption or a watermark does."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    height = max(1, image.height // 8)
    top = int(random.integers(0, image.height - height + 1))
    fill = tuple(int(value) for value in random.integers(0, 256, 3))
    words = "".join(chr(97 + int(letter)) for letter in random.integers(0, 26, 12))
    draw.rectangle((0, top, image.width, top + height), fill=(255, 255, 255))
    draw.text((image.width // 20, top), words, fill=fill, font_size=max(6, height * 3 // 4))
    return copy


_EDITS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "crop": _crop,
    "rotate": _rotate,
    "mirror": _mirror,
    "jpeg": _jpeg,
    "small": _small,
    "blur": _blur,
    "colour": _colour,
    "text": _text,
}
VIEW_KINDS = tuple(_EDITS)
