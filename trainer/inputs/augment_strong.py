"""Edits as copies of photos suffer them: turned, blurred, written over, compressed.

Beyond the paper's colours; after the augmentations of copy detection (Pizzi et al. 2022, SSCD,
section 4.2). B views, S their side.
"""

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.inputs.augment_colour import WHITE, apply_colours, jittered, light
from trainer.inputs.augment_draws import Seeds, onto, uniforms
from trainer.inputs.augment_operations import turned

JITTER, LIGHTING = 0.4, 0.1
GREY_CHANCE = 0.2
TURN_CHANCE, MOST_DEGREES = 0.3, 30.0
BLUR_CHANCE, BLUR_SIGMA = 0.3, (0.0005, 0.009)  # shares of the side: 0.1 to 2 pixels of 224
BAND_CHANCE, BAND_HEIGHT = 0.3, (0.08, 0.25)  # share of the side
JPEG_CHANCE, JPEG_QUALITY = 0.4, (8, 60)

_BAND_ROWS, _BAND_COLUMNS = 4, 16
_BLOCK = 8
# ITU-T T.81, annex K.1: the quantisation of luminance; used for all three colours.
_JPEG_STEPS = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip

Values = npt.NDArray[np.float64]


def edit_strong(pixels: Tensor, seeds: Seeds) -> Tensor:
    """Edit uint8 views [B, 3, S, S]: colours always, the rest by chance; the same out."""
    drawn = uniforms(seeds, "strong", 5)
    grey = np.where(drawn[:, 0] < GREY_CHANCE, 0.0, 1.0)
    colours = jittered(seeds, JITTER).saturation(grey).plus(light(seeds, LIGHTING))
    apply_colours(pixels, colours)
    edits = ((TURN_CHANCE, _turn), (BLUR_CHANCE, _blur), (BAND_CHANCE, _band), (JPEG_CHANCE, _jpeg))
    for number, (chance, edit) in enumerate(edits, start=1):
        own = np.flatnonzero(drawn[:, number] < chance)
        if len(own):
            rows = onto(pixels.device, own, torch.int64)
            edited = edit(pixels[rows].to(torch.float32), seeds[own])
            pixels[rows] = (edited.clamp(0, WHITE) + 0.5).to(torch.uint8)
    return pixels


def _between(bounds: tuple[float, float], places: Values) -> Values:
    return bounds[0] + (bounds[1] - bounds[0]) * places


def _turn(values: Tensor, seeds: Seeds) -> Tensor:
    """Turn by up to 30 degrees, the corners filled with the photo's own reflection."""
    degrees = _between((-MOST_DEGREES, MOST_DEGREES), uniforms(seeds, "turn", 1)[:, 0])
    return turned(values, degrees, mode="bilinear", beyond="reflection").to(torch.float32)


def _blur(values: Tensor, seeds: Seeds) -> Tensor:
    """Blur by a Gaussian."""
    num_views, _, side, _ = values.shape
    sigma = side * _between(BLUR_SIGMA, uniforms(seeds, "blur", 1)[:, 0])
    reach = math.ceil(2.5 * BLUR_SIGMA[1] * side)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma[:, None] ** 2))
    kernel = onto(values.device, taps / taps.sum(1, keepdims=True)).repeat_interleave(3, 0)
    stacked = values.reshape(1, 3 * num_views, side, side)
    padded = F.pad(stacked, (reach,) * 4, mode="reflect")
    across = F.conv2d(padded, kernel[:, None, None, :], groups=3 * num_views)
    down = F.conv2d(across, kernel[:, None, :, None], groups=3 * num_views)
    return down.view(values.shape)


def _band(values: Tensor, seeds: Seeds) -> Tensor:
    """Lay a band with a pattern of blocks over the view, as a caption or a watermark does."""
    side = values.shape[-1]
    drawn = uniforms(seeds, "band", 9 + _BAND_ROWS * _BAND_COLUMNS)
    height = _between(BAND_HEIGHT, drawn[:, 0])
    top = (1 - height) * drawn[:, 1]
    opacity = onto(values.device, _between((0.5, 1.0), drawn[:, 2]))[:, None, None, None]
    colours = onto(values.device, drawn[:, 3:9] * WHITE).view(-1, 2, 3, 1, 1)
    pattern = onto(values.device, drawn[:, 9:] < 0.5, torch.bool)  # noqa: PLR2004 - a coin
    place = (torch.arange(side, device=values.device) + 0.5) / side
    inside = (place - onto(values.device, top)[:, None]) / onto(values.device, height)[:, None]
    row = (inside * _BAND_ROWS).floor().clamp(0, _BAND_ROWS - 1).to(torch.int64)
    column = (place * _BAND_COLUMNS).floor().to(torch.int64)
    cell = (row[:, :, None] * _BAND_COLUMNS + column).flatten(1)
    lettered = pattern.gather(1, cell).view(-1, 1, side, side)
    painted = torch.where(lettered, colours[:, 0], colours[:, 1])
    in_band = ((inside >= 0) & (inside < 1))[:, None, :, None]
    return torch.where(in_band, values + (painted - values) * opacity, values)


def _jpeg(values: Tensor, seeds: Seeds) -> Tensor:
    """Round what JPEG rounds: the cosine coefficients of blocks of 8 x 8 pixels."""
    num_views, _, side, _ = values.shape
    quality = _between(JPEG_QUALITY, uniforms(seeds, "jpeg", 1)[:, 0])
    # The scale of the tables by quality: the Independent JPEG Group's convention.
    percent = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # noqa: PLR2004
    steps = np.maximum(1, np.floor((_JPEG_STEPS * percent[:, None, None] + 50) / 100))
    step = onto(values.device, steps)[:, None, None, None]
    to_ycc, cosine = (torch.as_tensor(m, device=values.device) for m in (_ycc(), _cosines()))
    rest = -side % _BLOCK
    padded = F.pad(values, (0, rest, 0, rest), mode="replicate")
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, padded) - WHITE / 2 * to_ycc.sum(1)[:, None, None]
    blocks = ycc.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
    coded = cosine @ blocks @ cosine.T
    decoded = cosine.T @ ((coded / step).round() * step) @ cosine
    ycc = decoded.permute(0, 1, 2, 4, 3, 5).reshape(num_views, 3, side + rest, side + rest)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), ycc) + WHITE / 2
    return rgb[..., :side, :side]


@functools.cache
def _ycc() -> npt.NDArray[np.float32]:
    """The matrix from RGB to luma and two differences of colour (ITU-R BT.601)."""
    return np.array(
        [
            [0.299, 0.587, 0.114],
            [-0.168736, -0.331264, 0.5],
            [0.5, -0.418688, -0.081312],
        ],
        np.float32,
    )


@functools.cache
def _cosines() -> npt.NDArray[np.float32]:
    """The orthonormal cosine transform of 8 values."""
    k, n = np.mgrid[0:_BLOCK, 0:_BLOCK]
    matrix = np.sqrt(2 / _BLOCK) * np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK))
    matrix[0] /= np.sqrt(2)
    cosines: npt.NDArray[np.float32] = matrix.astype(np.float32)
    return cosines
