"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) among the views of a batch.

B views of a process, S their side.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.inputs.augment_draws import onto
from trainer.seeds import seed_of


class Mix(NamedTuple):
    """Of each view [B]: its partner's label, the share of its own, and whether it is mixed.

    The classes' target is `share * CE(label) + (1 - share) * CE(partner_label)`. A mixed view
    shows no one instance, so no pair may hold it. Views left alone have share 1.
    """

    partner_labels: Tensor  # int64 [B]
    share: Tensor  # float32 [B], in [0, 1]
    mixed: Tensor  # bool [B]


class MixSettings(NamedTuple):
    """Alpha of each kind's Beta distribution, 0 for none; `portion` of the views is mixed."""

    mixup: float
    cutmix: float
    portion: float
    seed: int


class _Draws(NamedTuple):
    """What is drawn for the mixed views [b]: their rows, partners, shares, and boxes in pixels."""

    rows: npt.NDArray[np.int64]
    partners: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    cut: npt.NDArray[np.bool_]
    box: npt.NDArray[np.int64]  # [4, b]: left, right, top, bottom


def mix(
    pixels: Tensor, labels: Tensor, settings: MixSettings, *, step: int, rank: int
) -> tuple[Tensor, Mix]:
    """Mix some of the uint8 views [B, 3, S, S] with others of the batch -> float32, and a `Mix`.

    Which, with whom and how much depends on (seed, step, rank) alone. Partners are taken as
    they were before mixing.
    """
    device, num_views = pixels.device, len(labels)
    rng = np.random.default_rng(seed_of(settings.seed, "mix", step, rank))
    draws = _draw(num_views, pixels.shape[-1], settings, rng)
    rows, partners = (onto(device, ids, torch.int64) for ids in (draws.rows, draws.partners))
    mixed = torch.zeros(num_views, dtype=torch.bool, device=device)
    mixed[rows] = True
    share = torch.ones(num_views, device=device)
    share[rows] = onto(device, draws.share)
    partner_labels = labels.clone()
    partner_labels[rows] = labels[partners]
    out = pixels.to(torch.float32)
    if len(draws.rows):
        own, other = out[rows], out[partners]
        weight = _weights(draws, pixels.shape[-1], device)
        out[rows] = other + (own - other) * weight
    return out, Mix(partner_labels, share, mixed)


def _draw(num_views: int, side: int, settings: MixSettings, rng: np.random.Generator) -> _Draws:
    coins = rng.uniform(size=num_views)
    shifts = rng.integers(1, max(2, num_views), size=num_views)  # never a view with itself
    cut = rng.uniform(size=num_views) < 0.5  # noqa: PLR2004 - a coin
    cut = (cut | (settings.mixup == 0)) & (settings.cutmix > 0)
    by_mixup = rng.beta(settings.mixup or 1, settings.mixup or 1, size=num_views)
    by_cutmix = rng.beta(settings.cutmix or 1, settings.cutmix or 1, size=num_views)
    centre = rng.uniform(size=(2, num_views)) * side
    share = np.where(cut, by_cutmix, by_mixup)
    half = np.sqrt(1 - share) * side / 2
    low, high = (np.clip(np.rint(centre + sign * half), 0, side).astype(int) for sign in (-1, 1))
    # What is cut off at the edge is not covered: the share is of the pixels that are left.
    covered = (high - low).prod(0) / side**2
    share = np.where(cut, 1 - covered, share)
    rows = np.flatnonzero(coins < settings.portion) if num_views > 1 else np.array([], int)
    box = np.stack([low[0], high[0], low[1], high[1]])
    partners = (rows + shifts[rows]) % num_views
    return _Draws(rows, partners, share[rows], cut[rows], box[:, rows])


def _weights(draws: _Draws, side: int, device: torch.device) -> Tensor:
    """Return the share of a view's own at each pixel, [b, 1, S, S]."""
    left, right, top, bottom = onto(device, draws.box).unsqueeze(-1)
    place = torch.arange(side, device=device)
    columns = (place >= left) & (place < right)
    rows = (place >= top) & (place < bottom)
    outside = ~(rows[:, :, None] & columns[:, None, :])[:, None]
    cut = onto(device, draws.cut, torch.bool)[:, None, None, None]
    share = onto(device, draws.share)[:, None, None, None]
    return torch.where(cut, outside.to(torch.float32), share)
