"""Exact ranks of every query's right answers, whatever the size of the gallery.

Q queries, of which B in a block, N gallery rows, D embedding, T right pairs of a block.
A matrix product in float32 sorts out what stands clearly before or behind; pairs closer than
its rounding are compared by products of single rows, which come out the same in whatever block
or process they are made. So ranks depend on the embeddings alone, and ties count against the
model.
"""

import math

import torch
from torch import Tensor

from multigrain.metrics import MetricError, Ranks
from multigrain.own_ranks import own_ranks
from multigrain.right_pairs import RightPairs
from multigrain.truth import Truth

_SCORES = 1 << 25  # of a block at once: 128 MiB, and where many are looked at some times that
_FEWEST, _MOST = 16, 1024  # queries of a block
_MOST_RIGHT = 1 << 24  # right pairs that may be kept at once: 1 GiB
_SAMPLE = 8192  # gallery rows among which a limit is looked for
# Rounding of a product of D terms in float32: sqrt(D) units in practice (Higham & Mary 2019,
# section 3), and four times that to be sure.
_ROUNDING = 4 * 2.0**-24


def exact_ranks(
    queries: Tensor, gallery: Tensor, truth: Truth, *, limit: int | None = None
) -> list[Ranks]:
    """For each query the ranks of its right answers, ascending, junk left out of the ranking.

    float32 [Q, D] and [N, D], ranked by inner product. With `limit` only ranks below it are
    returned, which is many times faster when the limit is small. Memory beyond the arguments is
    a block of scores, of rows among themselves also a copy of them. Raises MetricError for values
    that are not finite.
    """
    for rows in (queries, gallery):
        if not bool(torch.isfinite(rows.sum(dim=1)).all()):
            raise MetricError("an embedding is not finite: the model is broken")
    ranks, span = list[Ranks](), _longest(queries) * _longest(gallery)
    margin = 2 * _ROUNDING * math.sqrt(queries.shape[1]) * span  # of two products
    num_right = sum(map(len, truth.relevant))
    if (
        num_right <= _MOST_RIGHT
        and queries.shape == gallery.shape
        and torch.equal(queries, gallery)
    ):
        return own_ranks(gallery, truth, limit=limit, span=span, margin=margin)
    step = min(max(_SCORES // max(1, len(gallery)), _FEWEST), _MOST)
    for start in range(0, len(queries), step):
        own = range(start, min(start + step, len(queries)))
        block = queries[own.start : own.stop]
        part = truth.part(own)
        ranks += _block_ranks(block, gallery, part, span=span, margin=margin, limit=limit)
    return ranks


def _are_own(queries: Tensor, gallery: Tensor, truth: Truth) -> bool:
    """Whether rows are ranked among themselves, on a CPU, and few enough pairs are right."""
    if queries.shape != gallery.shape or gallery.device.type != "cpu":
        return False
    return sum(map(len, truth.relevant)) <= _MOST_RIGHT and torch.equal(queries, gallery)


def _block_ranks(
    queries: Tensor,
    gallery: Tensor,
    truth: Truth,
    *,
    span: float,
    margin: float,
    limit: int | None,
) -> list[Ranks]:
    pairs = torch.from_numpy(truth.pairs()).to(gallery.device)
    junk = torch.from_numpy(truth.junk_pairs()).to(gallery.device)
    scores = queries @ gallery.T
    found = scores[pairs[0], pairs[1]]
    right = RightPairs(queries, gallery, pairs, found, span=span, margin=margin)
    lowest = scores.new_full((len(queries),), torch.inf)
    lowest = lowest.scatter_reduce(0, pairs[0], found, "amin")
    for hidden in (pairs, junk):
        scores[hidden[0], hidden[1]] = -torch.inf
    if limit is not None and limit <= min(_SAMPLE, len(gallery)):
        # As many wrong answers as the limit: what is below them is of no interest.
        enough = scores[:, :_SAMPLE].topk(limit).values[:, -1]
        lowest = torch.maximum(lowest, enough - margin)
    wrong = (scores >= (lowest - margin)[:, None]).nonzero().T
    right.count(wrong, scores[wrong[0], wrong[1]])
    return right.ranks(limit)


def _longest(rows: Tensor) -> float:
    starts = range(0, len(rows), _SAMPLE)
    norms = (rows[start : start + _SAMPLE].norm(dim=1).max() for start in starts)
    return max((float(norm) for norm in norms), default=0.0)
