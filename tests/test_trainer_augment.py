"""What the device does to views, beside plain formulas and torchvision, and what it depends on."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from trainer.augment_colour import ColourMap, apply_colours, jittered, light
from trainer.augment_device import edit_full
from trainer.augment_draws import normals, uniforms
from trainer.scenes import draw_photo

LUMA = np.array([0.299, 0.587, 0.114])


def photos(num: int, *, size: int = 48) -> Tensor:
    """Drawn photos, uint8 [num, 3, size, size], channels last."""
    drawn = [draw_photo(0, n, 0, size=2 * size, seed=0).resize((size, size)) for n in range(num)]
    return torch.from_numpy(np.stack([np.asarray(image) for image in drawn])).permute(0, 3, 1, 2)


def fresh(pixels: Tensor) -> Tensor:
    """A copy of the same memory layout, for what is edited in place."""
    return pixels.clone(memory_format=torch.preserve_format)


def test_numbers_drawn_by_counting_are_uniform_and_normal() -> None:
    """Moments and correlations as they should be, over seeds and over counters."""
    drawn = uniforms(np.arange(20_000), "a", 4)
    assert np.allclose(drawn.mean(0), 0.5, atol=0.01)
    assert np.allclose(drawn.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.03
    assert drawn.min() >= 0
    assert drawn.max() < 1
    bell = normals(np.arange(20_000), "b", 2)
    assert np.allclose(bell.mean(0), 0, atol=0.03)
    assert np.allclose(bell.var(0), 1, atol=0.04)
    assert not np.array_equal(uniforms([1], "a", 3), uniforms([1], "b", 3))
    assert np.array_equal(uniforms([1, 2], "a", 3)[1:], uniforms([2], "a", 5)[:, :3])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("size", [48, 45, 37])
def test_one_map_of_colours_equals_the_changes_one_by_one(
    order: tuple[int, int, int], size: int
) -> None:
    """Brightness, contrast, saturation and light in any order, of any size, to a rounding."""
    pixels = photos(2, size=size)
    factors = np.array([[0.7, 1.3], [1.25, 0.8], [0.75, 1.2]])
    shift = np.array([[3.0, -2.0, 5.0], [0.0, 9.0, -4.0]])
    colours = ColourMap.identity(2)
    for kind in order:
        change = (colours.brightness, colours.contrast, colours.saturation)[kind]
        colours = change(factors[kind])
    mapped = fresh(pixels)
    apply_colours(mapped, colours.plus(shift))
    for view in range(2):
        wanted = pixels[view].permute(1, 2, 0).numpy().astype(float)
        for kind in order:
            wanted = one_change(wanted, kind, factors[kind][view])
        wanted = (wanted + shift[view]).clip(0, 255)
        got = mapped[view].permute(1, 2, 0).numpy()
        assert np.abs(got - wanted).max() <= 0.51


def one_change(
    pixels: npt.NDArray[np.float64], kind: int, factor: float
) -> npt.NDArray[np.float64]:
    """Brightness, contrast or saturation of one view, by the book."""
    grey = (pixels @ LUMA)[..., None]
    match kind:
        case 0:
            return pixels * factor
        case 1:
            return grey.mean() + (pixels - grey.mean()) * factor
        case _:
            return grey + (pixels - grey) * factor


def test_jitter_takes_every_order_and_stays_within_its_strength() -> None:
    """The brightness of a grey photo changes by at most the strength."""
    colours = jittered(np.arange(600), 0.3)
    grey = (colours.matrix + colours.from_mean) @ np.ones(3)
    assert 0.7 <= grey.min() < 0.72
    assert 1.28 < grey.max() <= 1.3
    assert np.allclose(grey, grey[:, :1])
    assert np.std(light(np.arange(2000), 0.1), axis=0).max() < 10


@pytest.mark.parametrize("edit", [edit_full])
def test_an_edited_view_does_not_depend_on_its_batch(edit: object) -> None:
    """Alone, in another order and beside others it comes out the same to the bit."""
    assert callable(edit)
    pixels, seeds = photos(6), np.arange(6) * 7 + 1
    together = edit(fresh(pixels), seeds)
    backwards = edit(fresh(pixels.flip(0)), seeds[::-1].copy())
    assert torch.equal(together, backwards.flip(0))
    for view in range(6):
        own = slice(view, view + 1)
        assert torch.equal(edit(fresh(pixels[own]), seeds[own]), together[own])
    assert not torch.equal(together, pixels)
    assert together.shape == pixels.shape
