"""Random numbers by counting: number k of a view is a hash of the view's seed and k.

No generator has a state, so a view's choices are the same in any batch, worker and process.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.seeds import seed_of

Seeds = npt.NDArray[np.int64]
Uniforms = npt.NDArray[np.float64]

# SplitMix64 (Steele, Lea, Flood 2014, figure 17).
_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SMALLEST = 2.0**-53
_64_BITS = 2**64 - 1


def uniforms(seeds: Seeds | Sequence[int], purpose: str, num: int) -> Uniforms:
    """Return numbers in [0, 1) as float64 [len(seeds), num]; each purpose has its own."""
    start = np.asarray(seeds, np.int64).astype(np.uint64) ^ np.uint64(seed_of(purpose))
    with np.errstate(over="ignore"):
        z = start[:, None] + np.arange(1, num + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        for shift, factor in zip((30, 27), _FACTORS, strict=True):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    bits: Uniforms = (z >> np.uint64(11)).astype(np.float64) * _SMALLEST
    return bits


def stream(seed: int, purpose: str) -> Iterator[float]:
    """Yield the numbers of one seed one by one: the same as `uniforms`, for a few of them."""
    z = seed ^ seed_of(purpose)
    while True:
        z = (z + _GAMMA) & _64_BITS
        mixed = z
        for shift, factor in zip((30, 27), _FACTORS, strict=True):
            mixed = ((mixed ^ (mixed >> shift)) * factor) & _64_BITS
        yield ((mixed ^ (mixed >> 31)) >> 11) * _SMALLEST


def normals(seeds: Seeds | Sequence[int], purpose: str, num: int) -> Uniforms:
    """Return standard normal numbers as float64 [len(seeds), num] (Box and Muller 1958)."""
    drawn = uniforms(seeds, purpose, 2 * num)
    length = np.sqrt(-2 * np.log(1 - drawn[:, :num]))
    found: Uniforms = length * np.cos(2 * np.pi * drawn[:, num:])
    return found


def onto(device: torch.device, array: npt.ArrayLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """Copy a small array to the device without waiting for the device."""
    tensor = torch.as_tensor(np.asarray(array)).to(dtype)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
