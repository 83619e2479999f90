"""The operations of AutoAugment and its kin, on views that share an operation.

b views, S their side. All take uint8 pixels [b, 3, S, S] and a value for each view [b], and
return such pixels; the definitions are Pillow's and torchvision's.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.inputs.augment_colour import WHITE, ColourMap, apply_colours
from trainer.inputs.augment_draws import onto

Values = npt.NDArray[np.float64]
Operation = Callable[[Tensor, Values], Tensor]

_LEVELS = 256
_SHARPNESS_CENTRE, _SHARPNESS_SUM = 5.0, 13.0


def turned(
    pixels: Tensor, degrees: Values, *, mode: str = "nearest", beyond: str = "zeros"
) -> Tensor:
    """Turn about the middle, counter-clockwise."""
    angle, zero = np.deg2rad(degrees), np.zeros(len(degrees))
    rows = [[np.cos(angle), -np.sin(angle), zero], [np.sin(angle), np.cos(angle), zero]]
    return _moved(pixels, rows, mode=mode, beyond=beyond)


def _shear_x(pixels: Tensor, value: Values) -> Tensor:
    one, zero = np.ones(len(value)), np.zeros(len(value))
    # About the upper left corner: in coordinates from -1 to 1 that adds the value once more.
    return _moved(pixels, [[one, value, value], [zero, one, zero]])


def _shear_y(pixels: Tensor, value: Values) -> Tensor:
    one, zero = np.ones(len(value)), np.zeros(len(value))
    return _moved(pixels, [[one, zero, zero], [value, one, value]])


def _translate_x(pixels: Tensor, value: Values) -> Tensor:
    one, zero = np.ones(len(value)), np.zeros(len(value))
    return _moved(pixels, [[one, zero, -2 * np.trunc(value) / pixels.shape[-1]], [zero, one, zero]])


def _translate_y(pixels: Tensor, value: Values) -> Tensor:
    one, zero = np.ones(len(value)), np.zeros(len(value))
    return _moved(pixels, [[one, zero, zero], [zero, one, -2 * np.trunc(value) / pixels.shape[-2]]])


def _moved(
    pixels: Tensor, rows: list[list[Values]], *, mode: str = "nearest", beyond: str = "zeros"
) -> Tensor:
    """Take each pixel from where the matrix [2, 3, b] says, in coordinates from -1 to 1."""
    theta = onto(pixels.device, np.array(rows).transpose(2, 0, 1))
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(
        pixels.to(torch.float32), grid, mode=mode, padding_mode=beyond, align_corners=False
    )
    return _rounded(moved)


def _coloured(change: str) -> Operation:
    def operate(pixels: Tensor, value: Values) -> Tensor:
        colours = ColourMap.identity(len(value))
        apply_colours(pixels, getattr(colours, change)(1 + value))
        return pixels

    return operate


def _sharpness(pixels: Tensor, value: Values) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=pixels.device)
    kernel[:, :, 1, 1] = _SHARPNESS_CENTRE
    values = pixels.to(torch.float32)
    inner = F.conv2d(values, kernel / _SHARPNESS_SUM, groups=3)
    smooth = values.clone()
    smooth[..., 1:-1, 1:-1] = inner.round()
    factor = onto(pixels.device, 1 + value)[:, None, None, None]
    return _rounded((smooth + (values - smooth) * factor).clamp(0, WHITE))


def _posterize(pixels: Tensor, value: Values) -> Tensor:
    kept = _LEVELS - 2 ** (8 - value.astype(np.int64))
    return pixels & onto(pixels.device, kept, torch.uint8)[:, None, None, None]


def _solarize(pixels: Tensor, value: Values) -> Tensor:
    threshold = onto(pixels.device, WHITE * value)[:, None, None, None]
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


def _invert(pixels: Tensor, value: Values) -> Tensor:
    del value
    return 255 - pixels


def _autocontrast(pixels: Tensor, value: Values) -> Tensor:
    """Stretch each colour to the whole range; one of a single level stays."""
    del value
    low = pixels.amin((2, 3), keepdim=True).to(torch.float32)
    high = pixels.amax((2, 3), keepdim=True).to(torch.float32)
    flat = high == low
    scale = torch.where(flat, 1.0, WHITE / (high - low + flat))
    stretched = (pixels - torch.where(flat, 0.0, low)) * scale
    return stretched.clamp(0, WHITE).to(torch.uint8)


def _equalize(pixels: Tensor, value: Values) -> Tensor:
    """Make each colour's histogram flat, as Pillow does, in whole numbers."""
    del value
    flat = pixels.permute(0, 1, 2, 3).flatten(2).flatten(0, 1).to(torch.int64)
    counts = torch.zeros(len(flat), _LEVELS, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    of_highest = counts.gather(1, flat.amax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - of_highest) // (_LEVELS - 1)
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(_LEVELS - 1)
    table = torch.where(step == 0, torch.arange(_LEVELS, device=pixels.device), table)
    return table.gather(1, flat).view(pixels.shape).to(torch.uint8)


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).to(torch.uint8)


OPERATIONS: dict[str, Operation] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": turned,
    "brightness": _coloured("brightness"),
    "colour": _coloured("saturation"),
    "contrast": _coloured("contrast"),
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
}
