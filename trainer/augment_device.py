"""The part of augmentation that is done on the device, a batch at a time: colours, edits, mixing.

A view's choices are drawn on the host from its seed: it comes out the same in any batch, on any
process, and no step waits for the device.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from trainer.augment_colour import apply_colours, jittered, light
from trainer.augment_draws import Seeds
from trainer.loading import Batch
from trainer.mix import Mix

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
    """Edits the views of a batch, which may overwrite the batch's own pixels."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits = tuple(edits)

    def __call__(self, batch: Batch, step: int) -> Prepared:
        """Return the batch of a step, edited; it must already lie on the device."""
        del step
        pixels, seeds = batch.pixels, batch.seeds.numpy()
        for edit in self.edits:
            pixels = edit(pixels, seeds)
        return Prepared(pixels, batch.labels, batch.photo_ids, None)


def edit_full(pixels: Tensor, seeds: Seeds) -> Tensor:
    """Jitter brightness, contrast and saturation, then the light: the paper's augmentation."""
    apply_colours(pixels, jittered(seeds, JITTER).plus(light(seeds, LIGHTING)))
    return pixels
