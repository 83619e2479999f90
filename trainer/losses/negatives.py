"""Which negatives an anchor is compared with: any, near ones, the nearest.

B rows of one process, G = global rows, k negatives an anchor.
"""

from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.seeds import seed_of

# Where the density formula stops being useful (Wu et al. 2017, "Sampling matters", section 4):
# nearer pairs are noise and would be drawn for ever, farther ones give no gradient.
NEAREST = 0.5
FARTHEST = 1.4

# Noise is made in blocks of rows, each from a seed of its own. The size is a constant, so that
# the number of processes does not show in it, and small, so that a process makes little more
# than its own rows.
ROWS_OF_NOISE = 64


class Negatives(StrEnum):
    """How negatives are drawn; docs/decisions/0002-negatives.md chooses."""

    UNIFORM = "uniform"  # every view of another instance alike
    DISTANCE = "distance"  # weighted by the inverse density of distances, row by row
    HARD = "hard"  # the nearest ones, without chance
    REFERENCE = "reference"  # `distance` as published code computes it, underflow and all


class Weights(NamedTuple):
    """Log weights of drawing [B, G], -inf where never, and the rows that fell back [B]."""

    log: Tensor
    fell_back: Tensor


def weights_of(
    distances: Tensor, candidates: Tensor, *, negatives: Negatives, effective_dim: int
) -> Weights:
    """Return how likely each candidate [B, G] is drawn; for `hard`, keys to rank them by."""
    match negatives:
        case Negatives.DISTANCE:
            return distance_weights(distances, candidates, effective_dim=effective_dim)
        case Negatives.REFERENCE:
            return reference_weights(distances, candidates, effective_dim=effective_dim)
        case Negatives.HARD:
            return _never_falling_back((-distances).masked_fill(~candidates, -torch.inf))
        case Negatives.UNIFORM:
            return _never_falling_back(_uniform(candidates, dtype=distances.dtype))


def distance_weights(distances: Tensor, candidates: Tensor, *, effective_dim: int) -> Weights:
    """Return `1[distance < 1.4] / q(max(distance, 0.5))` as logarithms, not normalised.

    `q` is the density of distances on the unit sphere of `effective_dim` dimensions (MultiGrain,
    section 3.3). A row without a candidate nearer than 1.4 falls back to uniform weights.
    Weights stay logarithms, row by row: exponentiated after subtracting the maximum of the
    whole matrix they underflow in every row at a few hundred dimensions.
    """
    near = candidates & (distances < FARTHEST)
    weighted = (-_log_density(distances, effective_dim)).masked_fill_(~near, -torch.inf)
    return _or_uniform(weighted, candidates, usable=any_of(near))


def reference_weights(distances: Tensor, candidates: Tensor, *, effective_dim: int) -> Weights:
    """Return `distance_weights` as the published implementations compute them, for comparison.

    In float32 they exponentiate after subtracting the maximum of the whole matrix, pairs of one
    instance and the diagonal included; since the weight falls with the distance, that maximum
    is the diagonal's, the weight at 0.5. A row whose candidates all underflow falls back to
    uniform weights: nearly every row at 512 dimensions or more. Where published code draws with
    replacement, this draws without.
    """
    near = candidates & (distances < FARTHEST)
    largest = -_log_density(distances.new_full((1, 1), NEAREST), effective_dim)
    weight = (-_log_density(distances, effective_dim) - largest).float().exp() * near
    log = weight.log().to(distances.dtype)
    return _or_uniform(log, candidates, usable=weight.sum(dim=1) > 0)


def _log_density(distances: Tensor, dim: int) -> Tensor:
    """`log q(z) = (d - 2) log z + (d - 3)/2 log(1 - z^2/4)`, z clamped to [0.5, 1.4]."""
    # Clamped above too, so that antipodes (z = 2) do not reach log(0).
    z = distances.clamp(NEAREST, FARTHEST)
    near_two = z.square().mul_(-0.25).log1p_().mul_((dim - 3) / 2)
    return z.log_().mul_(dim - 2).add_(near_two)


def _or_uniform(log: Tensor, candidates: Tensor, *, usable: Tensor) -> Weights:
    uniform = _uniform(candidates, dtype=log.dtype)
    return Weights(torch.where(usable.unsqueeze(1), log, uniform), ~usable & any_of(candidates))


def any_of(mask: Tensor) -> Tensor:
    """Mask [B, G] -> which rows [B] hold a True; many times faster than `any` on a CPU."""
    return mask.view(torch.uint8).amax(dim=1).bool()


def _uniform(candidates: Tensor, *, dtype: torch.dtype) -> Tensor:
    equal = torch.zeros(candidates.shape, dtype=dtype, device=candidates.device)
    return equal.masked_fill_(~candidates, -torch.inf)


def _never_falling_back(log: Tensor) -> Weights:
    return Weights(log, torch.zeros(len(log), dtype=torch.bool, device=log.device))


def gumbel_keys(log_weight: Tensor, noise: Tensor) -> Tensor:
    """Return keys [B, G] of which the k largest of a row are k draws without replacement.

    Gumbel top-k, `log_weight - log(noise)` with noise Exp(1): each draw is proportional to the
    weights left, and a weight of -inf is never drawn, its key being -inf.
    """
    return log_weight - noise.log()


def noise_rows(
    rows: range, num_columns: int, *, seed: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return Exp(1) noise [B, G] for the given global rows, a function of (seed, row, G) alone.

    So one process and several draw the same negatives. `seed` must be another one for each
    step.
    """
    first_block = rows.start // ROWS_OF_NOISE
    last_block = max(rows.start, rows.stop - 1) // ROWS_OF_NOISE
    # A batch smaller than a block has fewer rows, the same in each process.
    height = min(ROWS_OF_NOISE, num_columns)
    noise = torch.empty(
        (last_block - first_block + 1) * height, num_columns, dtype=dtype, device=device
    )
    generator = torch.Generator(device)
    for place, block in enumerate(range(first_block, last_block + 1)):
        # Re-seeding a device's generator does not wait for the device.
        generator.manual_seed(seed_of(seed, "rows", block))
        noise[place * height : (place + 1) * height].uniform_(generator=generator)
    start = rows.start - first_block * ROWS_OF_NOISE
    # Exactly 0 would give infinite noise; the logarithm of a uniform draw costs a quarter of
    # torch's own exponential on a CPU.
    tiny = torch.finfo(dtype).tiny
    return noise[start : start + len(rows)].clamp_min_(tiny).log_().neg_()
