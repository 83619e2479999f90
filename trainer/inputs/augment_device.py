"""The part of augmentation that is done on the device, a batch at a time: colours, edits, mixing.

A view's choices are drawn on the host from its seed: it comes out the same in any batch, on any
process, and no step waits for the device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor

from trainer.inputs.augment_colour import apply_colours, jittered, light
from trainer.inputs.augment_draws import Seeds
from trainer.inputs.augment_erasing import edit_erasing
from trainer.inputs.augment_policies import (
    edit_by,
    plan_autoaugment,
    plan_randaugment,
    plan_trivial,
)
from trainer.inputs.augment_strong import edit_strong
from trainer.inputs.loading import Batch
from trainer.inputs.mix import Mix, MixSettings, mix

# Takes uint8 pixels [B, 3, S, S], channels last, and the views' seeds; returns such pixels.
Edit = Callable[[Tensor, Seeds], Tensor]

# MultiGrain, section 4.1, and its implementation.
JITTER = 0.3
LIGHTING = 0.1


class Prepared(NamedTuple):
    """A batch as the model takes it; `pixels` [B, 3, S, S] in 0..255, uint8, or float if mixed."""

    pixels: Tensor
    labels: Tensor
    photo_ids: Tensor
    mix: Mix | None


class DevicePart:
    """Edits the views of a batch, which may overwrite the batch's own pixels, then mixes them."""

    def __init__(
        self, edits: Sequence[Edit], *, mixing: MixSettings | None = None, rank: int = 0
    ) -> None:
        self.edits = tuple(edits)
        self.mixing = mixing
        self.rank = rank

    def __call__(self, batch: Batch, step: int) -> Prepared:
        """Return the batch of a step, edited; it must already lie on the device."""
        pixels, seeds = batch.pixels, batch.seeds.numpy()
        for edit in self.edits:
            pixels = edit(pixels, seeds)
        if self.mixing is None:
            return Prepared(pixels, batch.labels, batch.photo_ids, None)
        pixels, mixed = mix(pixels, batch.labels, self.mixing, step=step, rank=self.rank)
        return Prepared(pixels, batch.labels, batch.photo_ids, mixed)


def edits_of(augment: str, *, erasing: float) -> list[Edit]:
    """Return the edits of a named augmentation, in order; `torch` is crop and flip alone."""
    by_name: dict[str, list[Edit]] = {
        "torch": [],
        "full": [edit_full],
        "autoaugment": [partial(edit_by, plan_autoaugment)],
        "randaugment": [partial(edit_by, plan_randaugment)],
        "trivial": [partial(edit_by, plan_trivial)],
        "strong": [edit_strong],
    }
    last: list[Edit] = [partial(edit_erasing, chance=erasing)] if erasing else []
    return by_name[augment] + last


def edit_full(pixels: Tensor, seeds: Seeds) -> Tensor:
    """Jitter brightness, contrast and saturation, then the light: the paper's augmentation."""
    apply_colours(pixels, jittered(seeds, JITTER).plus(light(seeds, LIGHTING)))
    return pixels
