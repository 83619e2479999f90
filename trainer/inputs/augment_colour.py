"""Brightness, contrast, saturation and light of views: one linear map of colours a view.

B views, 3 colours. Each of the changes is linear in a pixel and in the view's mean colour, so
any sequence of them is `pixel -> matrix pixel + from_mean mean + shift`: the pixels are read and
written once, whatever the number of changes.
"""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.inputs.augment_draws import Seeds, normals, onto, uniforms

WHITE = 255.0
# Eigenvectors (columns) and eigenvalues of RGB over ImageNet, pixels in 0..1
# (Krizhevsky et al. 2012, section 4.1; the constants in common use since fb.resnet.torch).
_RGB_DIRECTIONS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_RGB_VARIANCES = np.array([0.2175, 0.0188, 0.0045])
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_GREY = np.tile(_LUMA, (3, 1))
_ORDERS = np.array(list(itertools.permutations(range(3))))
_ROUNDING = 0.5  # before the fraction is cut off
# So many pixels are multiplied at once: a product with a 3 x 3 matrix would be all overhead.
_MOST_PIXELS_JOINED = 16

Floats = npt.NDArray[np.float64]


class ColourMap(NamedTuple):
    """A map of colours in 0..255 for each view: see the head of this file."""

    matrix: Floats  # [B, 3, 3]
    from_mean: Floats  # [B, 3, 3]
    shift: Floats  # [B, 3]

    @classmethod
    def identity(cls, num_views: int) -> "ColourMap":
        """Return the map that changes nothing."""
        matrix = np.tile(np.eye(3), (num_views, 1, 1))
        return cls(matrix, np.zeros_like(matrix), np.zeros((num_views, 3)))

    def brightness(self, factor: Floats) -> "ColourMap":
        """Follow by `pixel * factor`, factor [B]."""
        f = factor[:, None, None]
        return ColourMap(self.matrix * f, self.from_mean * f, self.shift * factor[:, None])

    def contrast(self, factor: Floats) -> "ColourMap":
        """Follow by `grey mean + (pixel - grey mean) * factor`, factor [B]."""
        f, rest = factor[:, None, None], 1 - factor[:, None]
        from_mean = f * self.from_mean + rest[..., None] * (
            _TO_GREY @ (self.matrix + self.from_mean)
        )
        shift = factor[:, None] * self.shift + rest * (self.shift @ _TO_GREY.T)
        return ColourMap(f * self.matrix, from_mean, shift)

    def saturation(self, factor: Floats) -> "ColourMap":
        """Follow by `grey + (pixel - grey) * factor`, factor [B]."""
        f = factor[:, None, None]
        change = f * np.eye(3) + (1 - f) * _TO_GREY
        shift = np.einsum("bij,bj->bi", change, self.shift)
        return ColourMap(change @ self.matrix, change @ self.from_mean, shift)

    def plus(self, shift: Floats) -> "ColourMap":
        """Follow by adding a colour [B, 3]."""
        return self._replace(shift=self.shift + shift)


def jittered(seeds: Seeds, strength: float) -> ColourMap:
    """Draw brightness, contrast and saturation within 1 +- strength, in random order."""
    drawn = uniforms(seeds, "jitter", 4)
    factors = 1 - strength + 2 * strength * drawn[:, :3]
    orders = _ORDERS[(drawn[:, 3] * len(_ORDERS)).astype(int)]
    found = ColourMap.identity(len(factors))
    for kinds in orders.T:
        # A factor of 1 changes nothing: each view takes its own kind of change.
        own = np.where(kinds[:, None] == np.arange(3), factors, 1.0)
        found = found.brightness(own[:, 0]).contrast(own[:, 1]).saturation(own[:, 2])
    return found


def light(seeds: Seeds, deviation: float) -> Floats:
    """Draw the shift of colours [B, 3] along the directions of RGB over ImageNet."""
    shifts = normals(seeds, "light", 3) * deviation * _RGB_VARIANCES
    found: Floats = shifts @ _RGB_DIRECTIONS.T * WHITE
    return found


def apply_colours(pixels: Tensor, colours: ColourMap) -> None:
    """Map uint8 pixels [B, 3, H, W], channels last, in place; clamped and rounded.

    On a CPU view by view, so that a view's pixels stay in the cache and its result does not
    depend on the others. In place, because the pages of fresh memory would cost as much again.
    """
    num_views, _, height, width = pixels.shape
    joined = max(n for n in range(1, _MOST_PIXELS_JOINED + 1) if height * width % n == 0)
    rows = pixels.permute(0, 2, 3, 1).view(num_views, -1, 3 * joined)
    # A row of `joined` pixels is multiplied by a matrix of as many blocks: each pixel by its own
    # view's matrix, the mean of each by all that comes from the mean.
    eye = torch.eye(joined, device=pixels.device)
    own = _blocks(eye, onto(pixels.device, colours.matrix))
    from_mean = _blocks(torch.full_like(eye, 1 / joined), onto(pixels.device, colours.from_mean))
    shift = onto(pixels.device, colours.shift + _ROUNDING).repeat(1, joined)[:, None]
    step = 1 if pixels.device.type == "cpu" else num_views
    part = torch.empty((step, *rows.shape[1:]), device=pixels.device)
    mapped = torch.empty_like(part)
    averaging = torch.full((step, 1, rows.shape[1]), 1 / rows.shape[1], device=pixels.device)
    for first in range(0, num_views, step):
        now = slice(first, first + step)
        part.copy_(rows[now])
        offset = torch.baddbmm(shift[now], averaging @ part, from_mean[now])
        torch.baddbmm(offset, part, own[now], out=mapped)
        rows[now].copy_(mapped.clamp_(0, WHITE + _ROUNDING))


def _blocks(pattern: Tensor, matrix: Tensor) -> Tensor:
    """Return the transposed matrices [B, 3, 3], each repeated where the pattern [n, n] says."""
    side = 3 * len(pattern)
    return torch.einsum("ij,bkl->biljk", pattern, matrix).reshape(-1, side, side)
