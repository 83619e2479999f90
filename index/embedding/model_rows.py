"""A block's pixels as rows, whatever the model refuses among them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from multigrain.errors import EmbeddingError

# Several, so that each shape of the whole-photo rule fills a batch.
BATCHES_PER_BLOCK = 4
_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 64


def batch_size_on(device: object) -> int:
    """How many photos a device embeds at once; the device prints as "cpu" or "cuda..."."""
    return _BATCH_ON_CPU if str(device).startswith("cpu") else _BATCH_ON_GPU


def rows_of(
    pixels: Sequence[NDArray[np.uint8]],
    embed: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]],
    *,
    dim: int,
) -> NDArray[np.float32]:
    """A row for each, fp32 [n, D], NaN for those the model gives no embedding."""
    if not pixels:
        return np.empty((0, dim), np.float32)
    try:
        return embed(pixels)
    except EmbeddingError:
        if len(pixels) == 1:
            return np.full((1, dim), np.nan, dtype=np.float32)
        # One bad photo must not cost its neighbours their place.
        return np.concatenate([rows_of([one], embed, dim=dim) for one in pixels])
