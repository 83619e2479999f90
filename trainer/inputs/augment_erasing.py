"""Random erasing (Zhong et al. 2020): a part of a view is painted over.

B views, S their side.
"""

import math

import numpy as np
import torch
from torch import Tensor

from multigrain.transforms import IMAGENET_MEAN
from trainer.inputs.augment_colour import WHITE
from trainer.inputs.augment_draws import Seeds, onto, uniforms

AREA = (0.02, 0.33)  # share of the view
ASPECT = (0.3, 3.3)


def edit_erasing(pixels: Tensor, seeds: Seeds, *, chance: float) -> Tensor:
    """Paint a rectangle of some of the uint8 views [B, 3, S, S] in the mean colour of photos.

    That is about zero to a trunk, which takes its input normalised.
    """
    side = pixels.shape[-1]
    coin, at_area, at_aspect, at_left, at_top = uniforms(seeds, "erasing", 5).T
    area = AREA[0] + (AREA[1] - AREA[0]) * at_area
    low, high = (math.log(value) for value in ASPECT)
    aspect = np.exp(low + (high - low) * at_aspect)
    width = np.minimum(1, np.sqrt(area * aspect)) * (coin < chance)
    height = np.minimum(1, np.sqrt(area / aspect))
    left, top = (1 - width) * at_left, (1 - height) * at_top
    box = onto(pixels.device, np.stack([left, left + width, top, top + height])).unsqueeze(-1)
    place = (torch.arange(side, device=pixels.device) + 0.5) / side
    columns = (place >= box[0]) & (place < box[1])
    rows = (place >= box[2]) & (place < box[3])
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    colour = onto(pixels.device, np.array(IMAGENET_MEAN) * WHITE, torch.uint8)[:, None, None]
    return torch.where(inside, colour, pixels)
