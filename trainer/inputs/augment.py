"""Random crops of a photo for training; every view is a function of its seed alone."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from multigrain.transforms import Pixels
from trainer.inputs.augment_draws import stream

_CROP_ATTEMPTS = 10

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class Augmentation(NamedTuple):
    """The part of a view's making that needs the whole photo: random resized crop and flip."""

    size: int  # side of a view, pixels
    seed: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)


def random_view(photo: Pixels, augmentation: Augmentation, *, seed: int) -> Pixels:
    """Return one view [S, S, 3] of a photo [H, W, 3], both uint8; equal seeds give equal views.

    Resized by torch: its kernel for bytes is two to three times as fast as Pillow's, and
    averages in the same way when it makes smaller. What is around it is numpy's, which never
    asks for threads of its own: many photos are cropped at a time.
    """
    draws = stream(seed, "crop")
    coin = next(draws)
    height, width = photo.shape[:2]
    left, top, right, bottom = _random_box(width, height, augmentation, draws)
    part = photo[top:bottom, left:right]
    if coin < 0.5:  # noqa: PLR2004 - a coin
        part = part[:, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(part)).unsqueeze(0).permute(0, 3, 1, 2)
    side = (augmentation.size, augmentation.size)
    view = F.interpolate(pixels, size=side, mode="bilinear", antialias=True)
    found: Pixels = view.permute(0, 2, 3, 1)[0].numpy()
    return found


def _random_box(width: int, height: int, augmentation: Augmentation, draws: Iterator[float]) -> Box:
    """Return (left, top, right, bottom) of a random part; the central part if none fits."""
    least, most = augmentation.area
    low, high = (math.log(value) for value in augmentation.aspect)
    for _ in range(_CROP_ATTEMPTS):
        at_area, at_aspect, at_left, at_top = islice(draws, 4)
        area = width * height * (least + (most - least) * at_area)
        aspect = math.exp(low + (high - low) * at_aspect)
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = (width - w) * at_left, (height - h) * at_top
            return _whole(left, top, w, h)
    w = min(width, height * augmentation.aspect[1])
    h = min(height, width / augmentation.aspect[0])
    left, top = (width - w) / 2, (height - h) / 2
    return _whole(left, top, w, h)


def _whole(left: float, top: float, width: float, height: float) -> Box:
    """Return the whole pixels that a part touches: at least one, none beyond the photo."""
    x, y = int(left), int(top)
    return (x, y, max(x + 1, int(left + width)), max(y + 1, int(top + height)))
