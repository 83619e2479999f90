"""From an upright image to the model's pixels: one rule, written into the checkpoint.

Every stage that looks at a photo (training's evaluation, index, service) prepares it here,
so that the same photo gives the same vector everywhere.
"""

import functools
import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB, 0..255

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Strided trunks see a map of 1/32 of the input's side.
_STRIDE = 32


class Preprocessing(BaseModel):
    """The rule that turns an image into the model's input.

    `crop` takes the central square (crop_fraction of the shorter side) and resizes it to
    size x size. `whole` keeps the whole photo: it is resized, a little out of shape, to the
    nearest of a few aspects of equal area, so that photos batch within an aspect. With the
    single aspect 1.0 the photo is squashed to a square. `mean` and `std` are of RGB in 0..1
    and are applied inside the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=32, le=2048)] = 224
    rule: Literal["crop", "whole"] = "crop"
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.875
    aspects: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.75,
        1.0,
        4 / 3,
    )
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    exif: Literal["upright"] = "upright"

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, below which a reduced-scale decode would blur."""
        return round(self.size / self.crop_fraction) if self.rule == "crop" else self.size

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Every (height, width) the model can be given."""
        if self.rule == "crop":
            return ((self.size, self.size),)
        return tuple(dict.fromkeys(_shape(self.size, aspect) for aspect in self.aspects))

    def shape_of(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) a photo of this size is prepared to: the one of nearest aspect."""
        own = math.log(width / height)
        return min(self.shapes(), key=lambda shape: abs(math.log(shape[1] / shape[0]) - own))

    def prepare(self, image: Image.Image) -> Pixels:
        """RGB image of any size, at least 1 x 1, to contiguous uint8 [height, width, 3]."""
        height, width = self.shape_of(*image.size)
        box = self._crop_box(*image.size) if self.rule == "crop" else None
        resized = image.resize((width, height), _RESAMPLING[self.interpolation], box=box)
        return np.array(resized)  # a copy: Pillow's own buffer is read-only

    def _crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        # The crop happens in the photo's own pixels, before the resize: resizing first would
        # blow a 4000 x 1 photo up to a million columns.
        side = min(width, height) * self.crop_fraction
        left, top = (width - side) / 2, (height - side) / 2
        return (left, top, left + side, top + side)


@functools.cache
def _shape(size: int, aspect: float) -> tuple[int, int]:
    """(height, width) congruent to `size` modulo the trunk's stride, near aspect and area.

    A size of 32k + 1, which some converted trunks prefer, thus stays 32k + 1 on both sides.
    Aspect counts twice: at small sizes, where the steps are coarse, a photo out of shape costs
    more than some area.
    """
    sides = range(size % _STRIDE + _STRIDE, 4 * size, _STRIDE)

    def cost(shape: tuple[int, int]) -> float:
        height, width = shape
        off_aspect = abs(math.log(width / height / aspect))
        return 2 * off_aspect + abs(math.log(width * height / size**2))

    return min(((height, width) for height in sides for width in sides), key=cost)
