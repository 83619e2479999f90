"""Which negatives an anchor is compared with: uniform, or weighted by distance.

B rows of one process, G = global rows, k negatives an anchor.
"""

from enum import StrEnum

import torch
from torch import Tensor

# Where the density formula stops being useful (Wu et al. 2017, "Sampling matters", section 4):
# nearer pairs are noise and would be drawn for ever, farther ones give no gradient.
NEAREST = 0.5
FARTHEST = 1.4


class Negatives(StrEnum):
    """How negatives are drawn."""

    UNIFORM = "uniform"
    DISTANCE = "distance"


def log_weights(distances: Tensor, candidates: Tensor, *, effective_dim: int) -> Tensor:
    """Return the log of the drawing weights [B, G], not normalised, -inf where not drawn.

    `weight = 1[distance < 1.4] / q(max(distance, 0.5))` with `q` the density of distances on
    the unit sphere of `effective_dim` dimensions: `log q(z) = (d - 2) log z + (d - 3)/2
    log(1 - z^2/4)` (MultiGrain, section 3.3). A row without a candidate nearer than 1.4 is
    drawn uniformly.

    Weights stay logarithms, row by row: exponentiated after subtracting the maximum of the
    whole matrix they underflow in every row at a few hundred dimensions.
    """
    # Clamped on both sides, so that antipodes (z = 2) do not reach log(0).
    z = distances.clamp(NEAREST, FARTHEST)
    log_density = (effective_dim - 2) * z.log() + (effective_dim - 3) / 2 * (-z * z / 4).log1p()
    near = candidates & (distances < FARTHEST)
    has_near = near.any(dim=1, keepdim=True)
    weighted = (-log_density).masked_fill(~near, -torch.inf)
    uniform = torch.zeros_like(weighted).masked_fill(~candidates, -torch.inf)
    return torch.where(has_near, weighted, uniform)


def uniform_log_weights(candidates: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return equal log weights for all candidates [B, G], -inf elsewhere."""
    return torch.zeros(candidates.shape, dtype=dtype, device=candidates.device).masked_fill(
        ~candidates, -torch.inf
    )


def draw(log_weight: Tensor, noise: Tensor, num_wanted: Tensor, *, most: int) -> Tensor:
    """Return a mask [B, G] of drawn columns: `num_wanted` [B] a row, without replacement.

    Gumbel top-k: the k largest of `log_weight - log(Exp(1))` are k draws without replacement,
    each proportional to the weights left. A row with fewer candidates gets all of them; no
    row gets more than `most`, which is given so that nothing waits for the device.
    """
    keys = log_weight - noise.log()
    best = keys.topk(min(most, keys.shape[1]), dim=1)
    place = torch.arange(best.indices.shape[1], device=keys.device)
    taken = (place < num_wanted.unsqueeze(1)) & best.values.isfinite()
    return torch.zeros_like(keys, dtype=torch.bool).scatter(1, best.indices, taken)


def noise_rows(
    rows: range, num_columns: int, *, seed: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return Exp(1) noise [B, G] for the given global rows, a function of (seed, row) alone.

    Every process draws the whole square and keeps its rows, so one process and several draw
    the same negatives. `seed` must be another one for each step.
    """
    generator = torch.Generator(device).manual_seed(seed)
    square = torch.empty(num_columns, num_columns, dtype=dtype, device=device)
    square.exponential_(generator=generator)
    # Exactly 0 would make its logarithm -inf and its key NaN beside a weight of -inf.
    return square[rows.start : rows.stop].clamp_min(torch.finfo(dtype).tiny)
