"""The margin loss over all pairs of views of the global batch.

B rows of one process, G = global rows, D embedding.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.losses.gather import (
    gather_batch,
    num_processes,
    process_rank,
    sum_over_processes,
)
from trainer.losses.negatives import Negatives, any_of, gumbel_keys, noise_rows, weights_of

# The root's gradient at 0 is infinite, and two equal views are at 0 or, rounded, below it.
SMALLEST_SQUARED_DISTANCE = 1e-8

# The instance of a view that belongs to no pair at all.
NO_INSTANCE = -1


class Divisor(StrEnum):
    """What the sum of the terms is divided by."""

    BOTH = "both"  # all non-zero terms
    EITHER = "either"  # pairs of a positive and its negative with a non-zero term


class MarginLoss(NamedTuple):
    """The loss to minimise and what is worth knowing about this process's part, all scalars."""

    loss: Tensor
    active_share: Tensor  # of the pairs, those with a non-zero term
    mean_positive_distance: Tensor
    mean_negative_distance: Tensor
    fallback_share: Tensor  # of the anchors, those whose negatives fell back to uniform


class Pairs(NamedTuple):
    """The pairs of each anchor: columns [B, k] of the global batch, and which of them count.

    `fell_back` [B] says whose negatives were drawn uniformly for want of better ones.
    """

    positive: Tensor
    is_positive: Tensor
    negative: Tensor
    is_negative: Tensor
    fell_back: Tensor


def margin_loss(
    embedding: Tensor,
    instances: Tensor,
    beta: Tensor,
    *,
    alpha: float,
    negatives: Negatives,
    effective_dim: int,
    most_negatives: int,
    seed: int,
    divisor: Divisor = Divisor.BOTH,
) -> MarginLoss:
    """Return the margin loss of unit embeddings [B, D] whose instances are int64 [B].

    `sum relu(d_ap - beta + alpha) + relu(beta - d_an + alpha)`, divided by the number of
    non-zero terms (MultiGrain, section 3.3): all ordered pairs of views of one instance, and
    for each of them one negative of the anchor. A view of NO_INSTANCE is in no pair. Anchors
    are this process's rows, everything else is the global batch. The loss is scaled so that the
    mean of its gradient over processes, which is what DDP takes, is the gradient of the whole
    batch in one process. A batch with a single instance has no negatives and loses nothing.
    `effective_dim` 0 is the embedding's own dimension, which `reference` always takes.
    """
    takes_own = negatives is Negatives.REFERENCE or effective_dim == 0
    everything = gather_batch(embedding)
    all_instances = gather_batch(instances)
    first = process_rank() * len(embedding)
    squared = squared_distances(embedding, everything)
    pairs = choose_pairs(
        distances_of(squared.detach()),
        instances,
        all_instances,
        range(first, first + len(embedding)),
        negatives=negatives,
        effective_dim=embedding.shape[1] if takes_own else effective_dim,
        most_negatives=most_negatives,
        seed=seed,
    )
    return _loss_of(squared, pairs, beta, alpha=alpha, divisor=divisor)


class _OwnDistances(torch.autograd.Function):
    """Squared distances of rows among themselves; the gradient is one product, not two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return _squared_distances(rows, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rows,), (gradient,) = ctx.saved_tensors, gradients
        both_ways: Tensor = (gradient + gradient.T) @ rows
        return -2 * both_ways


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Unit rows [B, D] and [G, D] -> squared Euclidean distances [B, G], 0 only to rounding."""
    if rows is columns:
        own: Tensor = _OwnDistances.apply(rows)
        return own
    return _squared_distances(rows, columns)


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.addmm(rows.new_full((1, 1), 2.0), rows, columns.T, alpha=-2)


def distances_of(squared: Tensor) -> Tensor:
    """Squared distances -> distances with a finite gradient everywhere."""
    return squared.clamp_min(SMALLEST_SQUARED_DISTANCE).sqrt()


def choose_pairs(
    distances: Tensor,
    instances: Tensor,
    all_instances: Tensor,
    rows: range,
    *,
    negatives: Negatives,
    effective_dim: int,
    most_negatives: int,
    seed: int,
) -> Pairs:
    """Return the pairs of the global rows `rows`, given distances [B, G] and instances.

    An anchor whose candidates are fewer than its positives has all of them as negatives, and
    one without candidates has no pairs.
    """
    shared = instances.unsqueeze(1) == all_instances
    candidates = (shared | (all_instances == NO_INSTANCE)).logical_not_()
    anchors = (instances != NO_INSTANCE) & any_of(candidates)
    shared[:, rows.start : rows.stop].fill_diagonal_(False)
    most = min(most_negatives, distances.shape[1])
    positive = shared.view(torch.uint8).topk(most, dim=1)
    is_positive = positive.values.bool() & anchors.unsqueeze(1)
    weights = weights_of(distances, candidates, negatives=negatives, effective_dim=effective_dim)
    keys = weights.log
    if negatives is not Negatives.HARD:
        noise = noise_rows(
            rows, distances.shape[1], seed=seed, device=keys.device, dtype=keys.dtype
        )
        keys = gumbel_keys(keys, noise)
    negative = keys.topk(most, dim=1)
    place = torch.arange(most, device=keys.device)
    wanted = place < is_positive.sum(dim=1, keepdim=True)
    return Pairs(
        positive.indices,
        is_positive,
        negative.indices,
        wanted & negative.values.isfinite(),
        weights.fell_back & is_positive.any(dim=1),
    )


def _loss_of(
    squared: Tensor, pairs: Pairs, beta: Tensor, *, alpha: float, divisor: Divisor
) -> MarginLoss:
    near = distances_of(squared.gather(1, pairs.positive))
    far = distances_of(squared.gather(1, pairs.negative))
    too_far = (near - beta + alpha).relu() * pairs.is_positive
    too_near = (beta - far + alpha).relu() * pairs.is_negative
    active, active_negative = too_far > 0, too_near > 0
    num_active = active.sum() + active_negative.sum()
    # An anchor's n-th positive is paired with its n-th negative.
    counted = num_active if divisor is Divisor.BOTH else (active | active_negative).sum()
    # The count of the whole batch: with a process's own count the gradients do not add up to
    # those of one process.
    count = sum_over_processes(counted.to(squared.dtype)).clamp_min(1) / num_processes()
    with torch.no_grad():
        num_positive, num_negative = pairs.is_positive.sum(), pairs.is_negative.sum()
        num_anchors = pairs.is_positive.any(dim=1).sum()
        seen = (
            num_active / (num_positive + num_negative).clamp_min(1),
            (near * pairs.is_positive).sum() / num_positive.clamp_min(1),
            (far * pairs.is_negative).sum() / num_negative.clamp_min(1),
            pairs.fell_back.sum() / num_anchors.clamp_min(1),
        )
    return MarginLoss((too_far.sum() + too_near.sum()) / count, *seen)
