"""Read photos as the model will see them in use, for validation and whitening.

n photos of a batch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multigrain.ahead import in_order
from multigrain.photo import PhotoError
from multigrain.transforms import Pixels, Preprocessing
from trainer.inputs.labels import PhotoSet

BATCH_SIZE = 16
NUM_AHEAD = 64  # photos decoded before they are needed
FEWEST_THREADS = 2  # decoding goes on while the model computes


class PreparedBatch(NamedTuple):
    """Photos of one shape: their numbers in the given order, and pixels uint8 [n, 3, h, w]."""

    numbers: list[int]
    pixels: Tensor


class Skipped(NamedTuple):
    """A photo that could not be read, and why."""

    number: int
    reason: str


def spread(num_photos: int, most: int) -> list[int]:
    """Return at most `most` photo ids, evenly over all, so that every class is among them."""
    num_taken = min(num_photos, most)
    return [place * num_photos // num_taken for place in range(num_taken)]


def prepared_photo(photos: PhotoSet, photo_id: int, preprocessing: Preprocessing) -> Pixels:
    """Decode and prepare one photo; raises PhotoError."""
    return preprocessing.prepare(photos.image(photo_id, min_side=preprocessing.min_side))


def prepared_batches(
    read: Callable[[int], Pixels], count: int, *, skipped: list[Skipped]
) -> Iterator[PreparedBatch]:
    """Yield `read(0) .. read(count - 1)`, each once, grouped by shape.

    Those for which `read` raises PhotoError are added to `skipped` instead.
    """
    # As many as torch was given: this process's share of the machine's cores.
    num_threads = max(FEWEST_THREADS, torch.get_num_threads())

    def attempt(number: int) -> Pixels | Skipped:
        try:
            return read(number)
        except PhotoError as error:
            return Skipped(number, f"{error.code}: {error}")

    waiting: dict[tuple[int, ...], list[tuple[int, Pixels]]] = defaultdict(list)
    photos = in_order(attempt, range(count), num_threads=num_threads, window=NUM_AHEAD)
    for number, found in enumerate(photos):
        if isinstance(found, Skipped):
            skipped.append(found)
            continue
        group = waiting[found.shape]
        group.append((number, found))
        if len(group) == BATCH_SIZE:
            yield _batch(group)
            group.clear()
    yield from (_batch(group) for group in waiting.values() if group)


def _batch(group: list[tuple[int, Pixels]]) -> PreparedBatch:
    pixels = torch.from_numpy(np.stack([found for _, found in group]))
    return PreparedBatch([number for number, _ in group], pixels.permute(0, 3, 1, 2).contiguous())
