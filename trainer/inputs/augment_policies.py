"""AutoAugment, RandAugment and TrivialAugment: which operation a view gets, how strong.

Cubuk et al. 2019 (AutoAugment, table 9: the ImageNet policy), Cubuk et al. 2020 (RandAugment,
two operations of strength 9), Mueller and Hutter 2021 (TrivialAugment, the wide space); with the
constants of torchvision's reference.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.inputs.augment_draws import Seeds, onto, uniforms
from trainer.inputs.augment_operations import OPERATIONS

RAND_OPERATIONS, RAND_STRENGTH = 2, 9
_BINS = 31
_AUTO_BINS = 10
_TRANSLATION = 150 / 331  # of the side
_WIDE_TRANSLATION = 32  # pixels

# (operation, chance, strength 0..9) twice a row.
_IMAGENET = (
    ("posterize", 0.4, 8, "rotate", 0.6, 9),
    ("solarize", 0.6, 5, "autocontrast", 0.6, 0),
    ("equalize", 0.8, 0, "equalize", 0.6, 0),
    ("posterize", 0.6, 7, "posterize", 0.6, 6),
    ("equalize", 0.4, 0, "solarize", 0.2, 4),
    ("equalize", 0.4, 0, "rotate", 0.8, 8),
    ("solarize", 0.6, 3, "equalize", 0.6, 0),
    ("posterize", 0.8, 5, "equalize", 1.0, 0),
    ("rotate", 0.2, 3, "solarize", 0.6, 8),
    ("equalize", 0.6, 0, "posterize", 0.4, 6),
    ("rotate", 0.8, 8, "colour", 0.4, 0),
    ("rotate", 0.4, 9, "equalize", 0.6, 0),
    ("equalize", 0.0, 0, "equalize", 0.8, 0),
    ("invert", 0.6, 0, "equalize", 1.0, 0),
    ("colour", 0.6, 4, "contrast", 1.0, 8),
    ("rotate", 0.8, 8, "colour", 1.0, 2),
    ("colour", 0.8, 8, "solarize", 0.8, 7),
    ("sharpness", 0.4, 7, "invert", 0.6, 0),
    ("shear_x", 0.6, 5, "equalize", 1.0, 0),
    ("colour", 0.4, 0, "equalize", 0.6, 0),
    ("equalize", 0.4, 0, "solarize", 0.2, 4),
    ("solarize", 0.6, 5, "autocontrast", 0.6, 0),
    ("invert", 0.6, 0, "equalize", 1.0, 0),
    ("colour", 0.6, 4, "contrast", 1.0, 8),
    ("equalize", 0.8, 0, "equalize", 0.6, 0),
)
_COLOURS = ("brightness", "colour", "contrast", "sharpness")

Values = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """The values of an operation from weakest to strongest; `signed` ones go both ways."""

    values: Values
    signed: bool


class Slot(NamedTuple):
    """One operation for each view [B]; the name is empty where there is none."""

    names: npt.NDArray[np.str_]
    values: Values


Plan = Callable[[Seeds, int], list[Slot]]


def edit_by(plan: Plan, pixels: Tensor, seeds: Seeds) -> Tensor:
    """Do to each view what the plan draws for its seed; uint8 [B, 3, S, S] in and out."""
    pixels = pixels.clone(memory_format=torch.preserve_format)
    for slot in plan(seeds, pixels.shape[-1]):
        for name, operation in OPERATIONS.items():
            own = np.flatnonzero(slot.names == name)
            if len(own):
                rows = onto(pixels.device, own, torch.int64)
                picked = pixels[rows].contiguous(memory_format=torch.channels_last)
                pixels[rows] = operation(picked, slot.values[own])
    return pixels


def plan_autoaugment(seeds: Seeds, side: int) -> list[Slot]:
    """Draw one of the 25 pairs, each half with its own chance."""
    drawn = uniforms(seeds, "autoaugment", 5)
    scales = _scales(side, _AUTO_BINS)
    pairs = [_IMAGENET[int(place * len(_IMAGENET))] for place in drawn[:, 0]]
    slots = []
    for half in (0, 1):
        names = np.array([pair[3 * half] for pair in pairs], np.str_)
        chances = np.array([pair[3 * half + 1] for pair in pairs])
        levels = np.array([pair[3 * half + 2] for pair in pairs])
        values = _values(names, levels, drawn[:, 3 + half], scales)
        slots.append(Slot(np.where(drawn[:, 1 + half] < chances, names, ""), values))
    return slots


def plan_randaugment(seeds: Seeds, side: int) -> list[Slot]:
    """Draw two operations, any of thirteen or none, all of one strength."""
    scales = _scales(side, _BINS)
    del scales["invert"]
    slots = []
    for number in range(RAND_OPERATIONS):
        drawn = uniforms(seeds, f"randaugment {number}", 2)
        names = _any_of(scales, drawn[:, 0])
        levels = np.full(len(names), RAND_STRENGTH)
        slots.append(Slot(names, _values(names, levels, drawn[:, 1], scales)))
    return slots


def plan_trivial(seeds: Seeds, side: int) -> list[Slot]:
    """Draw one operation, any of thirteen or none, of any strength."""
    del side
    scales = _wide_scales()
    drawn = uniforms(seeds, "trivial", 3)
    names = _any_of(scales, drawn[:, 0])
    levels = (drawn[:, 1] * _BINS).astype(int)
    return [Slot(names, _values(names, levels, drawn[:, 2], scales))]


def _any_of(scales: dict[str, Scale], places: Values) -> npt.NDArray[np.str_]:
    names = np.array(["", *scales], np.str_)
    chosen: npt.NDArray[np.str_] = names[(places * len(names)).astype(int)]
    return chosen


def _values(
    names: npt.NDArray[np.str_],
    levels: npt.NDArray[np.int64],
    coins: Values,
    scales: dict[str, Scale],
) -> Values:
    found = np.zeros(len(names))
    for name, scale in scales.items():
        own = names == name
        sign = np.where(coins[own] < 0.5, -1.0, 1.0) if scale.signed else 1.0  # noqa: PLR2004
        found[own] = scale.values[levels[own]] * sign
    return found


def _scales(side: int, bins: int) -> dict[str, Scale]:
    shift = np.linspace(0, _TRANSLATION * side, bins)
    shear = np.linspace(0, 0.3, bins)
    both_ways = {
        "shear_x": shear, "shear_y": shear, "translate_x": shift, "translate_y": shift,
        "rotate": np.linspace(0, 30, bins),
        **dict.fromkeys(_COLOURS, np.linspace(0, 0.9, bins)),
    }  # fmt: skip
    return _all_scales(both_ways, bins, bits=4) | {"invert": Scale(np.zeros(bins), signed=False)}


def _wide_scales() -> dict[str, Scale]:
    shift, shear = np.linspace(0, _WIDE_TRANSLATION, _BINS), np.linspace(0, 0.99, _BINS)
    both_ways = {
        "shear_x": shear, "shear_y": shear, "translate_x": shift, "translate_y": shift,
        "rotate": np.linspace(0, 135, _BINS),
        **dict.fromkeys(_COLOURS, np.linspace(0, 0.99, _BINS)),
    }  # fmt: skip
    return _all_scales(both_ways, _BINS, bits=6)


def _all_scales(both_ways: dict[str, Values], bins: int, *, bits: int) -> dict[str, Scale]:
    one_way = {
        "posterize": 8 - (np.arange(bins) / ((bins - 1) / bits)).round(),
        "solarize": np.linspace(1, 0, bins),
        "autocontrast": np.zeros(bins),
        "equalize": np.zeros(bins),
    }
    return {name: Scale(values, signed=True) for name, values in both_ways.items()} | {
        name: Scale(values, signed=False) for name, values in one_way.items()
    }
