"""The margin loss over all pairs of views of the global batch.

B rows of one process, G = global rows, D embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.gather import (
    gather_batch,
    num_processes,
    process_rank,
    sum_over_processes,
)
from trainer.negatives import Negatives, draw, log_weights, noise_rows, uniform_log_weights

# The root's gradient at 0 is infinite, and two equal views are at 0 or, rounded, below it.
SMALLEST_SQUARED_DISTANCE = 1e-8


class MarginLoss(NamedTuple):
    """The loss to minimise and what is worth knowing about it, all scalars."""

    loss: Tensor
    active_share: Tensor  # of this process's pairs, those with a non-zero term
    mean_positive_distance: Tensor
    mean_negative_distance: Tensor


class Pairs(NamedTuple):
    """Which pairs enter the loss: masks [B, G] of positives and of drawn negatives."""

    positive: Tensor
    negative: Tensor


def margin_loss(
    embedding: Tensor,
    photo_ids: Tensor,
    beta: Tensor,
    *,
    alpha: float,
    negatives: Negatives,
    effective_dim: int,
    most_negatives: int,
    seed: int,
) -> MarginLoss:
    """Return the margin loss of unit embeddings [B, D] whose instances are photo_ids [B].

    `sum relu(d_ap - beta + alpha) + relu(beta - d_an + alpha)`, divided by the number of
    non-zero terms (MultiGrain, section 3.3): all ordered pairs of views of one photo, and for
    each of them one negative of the anchor. Anchors are this process's rows, everything else
    is the global batch. The loss is scaled so that the mean of its gradient over processes,
    which is what DDP takes, is the gradient of the whole batch in one process. A batch with a
    single photo has no negatives and loses nothing.
    """
    everything = gather_batch(embedding)
    all_ids = gather_batch(photo_ids)
    first = process_rank() * len(embedding)
    rows = range(first, first + len(embedding))
    distances = pairwise_distances(embedding, everything)
    pairs = choose_pairs(
        distances.detach(),
        photo_ids.unsqueeze(1) == all_ids,
        rows,
        negatives=negatives,
        effective_dim=effective_dim,
        most_negatives=most_negatives,
        seed=seed,
    )
    return _loss_of(distances, pairs, beta, alpha=alpha)


def pairwise_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Unit rows [B, D] and [G, D] -> Euclidean distances [B, G], finite gradient at 0."""
    squared = 2 - 2 * (rows @ columns.T)
    return squared.clamp_min(SMALLEST_SQUARED_DISTANCE).sqrt()


def choose_pairs(
    distances: Tensor,
    same_photo: Tensor,
    rows: range,
    *,
    negatives: Negatives,
    effective_dim: int,
    most_negatives: int,
    seed: int,
) -> Pairs:
    """Return the pairs of the global rows `rows` from distances and same-photo mask [B, G]."""
    itself = torch.zeros_like(same_photo)
    itself[:, rows.start : rows.stop].fill_diagonal_(True)
    candidates = ~same_photo
    positive = same_photo & ~itself & candidates.any(dim=1, keepdim=True)
    if negatives is Negatives.DISTANCE:
        weights = log_weights(distances, candidates, effective_dim=effective_dim)
    else:
        weights = uniform_log_weights(candidates, dtype=distances.dtype)
    noise = noise_rows(
        rows, distances.shape[1], seed=seed, device=distances.device, dtype=distances.dtype
    )
    return Pairs(positive, draw(weights, noise, positive.sum(dim=1), most=most_negatives))


def _loss_of(distances: Tensor, pairs: Pairs, beta: Tensor, *, alpha: float) -> MarginLoss:
    too_far = (distances - beta + alpha).relu() * pairs.positive
    too_near = (beta - distances + alpha).relu() * pairs.negative
    num_active = ((too_far > 0).sum() + (too_near > 0).sum()).to(distances.dtype)
    # The count of the whole batch: with a process's own count the gradients do not add up to
    # those of one process.
    divisor = sum_over_processes(num_active).clamp_min(1) / num_processes()
    num_positive, num_negative = pairs.positive.sum(), pairs.negative.sum()
    with torch.no_grad():
        active_share = num_active / (num_positive + num_negative).clamp_min(1)
        mean_positive_distance = (distances * pairs.positive).sum() / num_positive.clamp_min(1)
        mean_negative_distance = (distances * pairs.negative).sum() / num_negative.clamp_min(1)
    return MarginLoss(
        loss=(too_far.sum() + too_near.sum()) / divisor,
        active_share=active_share,
        mean_positive_distance=mean_positive_distance,
        mean_negative_distance=mean_negative_distance,
    )
