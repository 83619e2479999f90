"""Retrieval scores of many embeddings at once: exact, block by block, on any device.

Q queries, of which B in a block, N gallery rows, D embedding, K classes, P positives at most.
Ties count against the model, as in `multigrain.metrics`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from multigrain.metrics import MetricError

# Scores held at once: 2^22 with their places are about 64 MiB.
_MAX_SCORES = 1 << 22


class ClassScores(NamedTuple):
    """One value a query, float64 [Q], all NaN for a query without positives.

    `ap` is rectangular over all positives, `map_at_r` over the first R ranks of R positives,
    `recall_at_1` whether the nearest is a positive.
    """

    ap: Tensor
    map_at_r: Tensor
    recall_at_1: Tensor


def class_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of each photo's class among the logits [N, K]: 0-based int64 [N], ties behind.

    A logit that is no number stands before the right one, and behind all if it is its own.
    """
    right = logits.gather(1, labels[:, None])
    return (~(logits < right)).sum(dim=1) - 1


def copy_ranks(copies: Tensor, originals: Tensor, gallery: Tensor) -> Tensor:
    """Rank of each copy's original: 0-based int64 [Q], ties behind all others.

    Copies [Q, D], their originals' gallery rows int64 [Q], gallery [N, D]; unit rows. Raises
    MetricError for values that are not finite.
    """
    _check_finite(copies, gallery)
    ranks = [torch.empty(0, dtype=torch.int64, device=gallery.device)]
    for block in _blocks(len(copies), len(gallery)):
        scores = copies[block] @ gallery.T
        column = originals[block, None]
        own = scores.gather(1, column)
        scores.scatter_(1, column, -torch.inf)
        ranks.append((scores >= own).sum(dim=1))
    return torch.cat(ranks)


def class_scores(queries: Tensor, rows: Tensor, gallery: Tensor, labels: Tensor) -> ClassScores:
    """Score every query by the classes of the others: it is left out of its own ranking.

    Queries [Q, D] with their own gallery rows int64 [Q], gallery [N, D] with labels int64 [N];
    unit rows. Memory beyond the arguments is one copy of the gallery and a bounded block.
    Raises MetricError for values that are not finite.
    """
    _check_finite(queries, gallery)
    order = labels.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    # In the order of classes a query's positives are neighbours: a slice instead of a mask.
    grouped, gallery = labels[order].contiguous(), gallery[order]
    own, wanted = place[rows], labels[rows].contiguous()
    starts = torch.searchsorted(grouped, wanted)
    counts = torch.searchsorted(grouped, wanted, right=True) - starts
    values = [torch.empty(0, 3, dtype=torch.float64, device=gallery.device)]
    for block in _blocks(len(queries), len(gallery)):
        scores = queries[block] @ gallery.T
        scores.scatter_(1, own[block, None], -torch.inf)
        values.append(_block_scores(scores, starts[block, None], counts[block, None]))
    return ClassScores(*torch.cat(values).unbind(1))


def _block_scores(scores: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
    """Scores [B, N] with -inf at the query, slices of its class [B, 1] -> values [B, 3]."""
    longest = int(counts.max())
    within = torch.arange(longest, device=scores.device) < counts
    # Padding repeats the slice's first column, which is of the class too.
    columns = starts + torch.arange(longest, device=scores.device) * within
    found = scores.gather(1, columns).masked_fill(~within, -torch.inf)
    positives = found.sort(dim=1).values  # the query itself and the padding come first
    scores.scatter_(1, columns, -torch.inf)
    # A negative stands before every positive that scores no more than it.
    beaten = torch.searchsorted(positives, scores, right=True)
    histogram = scores.new_zeros(len(scores), longest + 1, dtype=torch.int64)
    histogram.scatter_add_(1, beaten, torch.ones_like(beaten))
    before = histogram.flip(1).cumsum(1)[:, :longest]  # [B, P], best positive first
    return _values(before, num_positives=counts - 1)


def _values(before: Tensor, *, num_positives: Tensor) -> Tensor:
    """Negatives before each positive [B, P] and positives [B, 1] -> ap, map_at_r, recall_at_1."""
    found = torch.arange(1, before.shape[1] + 1, device=before.device)
    positive = found <= num_positives
    ranks = before + found - 1
    precision = torch.where(positive, found / (ranks.double() + 1), 0.0)
    ap = precision.sum(dim=1, keepdim=True) / num_positives
    early = torch.where(ranks < num_positives, precision, 0.0).sum(dim=1, keepdim=True)
    first = (ranks[:, :1] == 0).double()
    values = torch.cat([ap, early / num_positives, first], dim=1)
    return values.masked_fill(num_positives < 1, torch.nan)


def _blocks(num_queries: int, num_rows: int) -> Iterator[slice]:
    step = max(1, _MAX_SCORES // max(1, num_rows))
    for start in range(0, num_queries, step):
        yield slice(start, start + step)


def _check_finite(*values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise MetricError("an embedding is not finite: the model is broken")
