"""Exact ranks of every query's right answers, whatever the size of the gallery.

Q queries, of which B in a block, N gallery rows, D embedding, T right pairs of a block.
A matrix product in float32 sorts out what stands clearly before or behind; pairs closer than
its rounding are compared by products of single rows, which come out the same in whatever block
or process they are made. So ranks depend on the embeddings alone, and ties count against the
model.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multigrain.metrics import MetricError, Ranks

Rows = npt.NDArray[np.int64]

_SCORES = 1 << 25  # of a block at once: 128 MiB, and where many are looked at some times that
_FEWEST, _MOST = 16, 1024  # queries of a block
_SAMPLE = 8192  # gallery rows among which a limit is looked for
_PAIRS = 1024  # rows multiplied one by one at once: 8 MiB each at 2048 dimensions
# Rounding of a product of D terms in float32: sqrt(D) units in practice (Higham & Mary 2019,
# section 3), and four times that to be sure.
_ROUNDING = 4 * 2.0**-24


class Truth(NamedTuple):
    """Gallery rows, for each query: the right answers, and those that do not count.

    A row that is both does not count. Arrays may be shared between queries.
    """

    relevant: Sequence[Rows]
    junk: Sequence[Rows]

    def part(self, own: range) -> "Truth":
        """The truth of some of the queries."""
        return Truth(self.relevant[own.start : own.stop], self.junk[own.start : own.stop])

    def num_positives(self) -> list[int]:
        """How many right answers count, for each query."""
        counts = list[int]()
        for start in range(0, len(self.relevant), _MOST):
            own = self.part(range(start, start + _MOST))
            counts += np.bincount(own.pairs()[0], minlength=len(own.relevant)).tolist()
        return counts

    def pairs(self) -> Rows:
        """The pairs [2, T] of (query, gallery row) that are right and count, sorted."""
        right, junk = _pairs(self.relevant), _pairs(self.junk)
        num_rows = 1 + max((int(rows[1].max()) for rows in (right, junk) if rows.size), default=0)
        keys = np.setdiff1d(right[0] * num_rows + right[1], junk[0] * num_rows + junk[1])
        return np.stack(np.divmod(keys, num_rows))


def exact_ranks(
    queries: Tensor, gallery: Tensor, truth: Truth, *, limit: int | None = None
) -> list[Ranks]:
    """For each query the ranks of its right answers, ascending, junk left out of the ranking.

    float32 [Q, D] and [N, D], ranked by inner product. With `limit` only ranks below it are
    returned, which is many times faster when the limit is small. Memory beyond the arguments is
    a block of scores. Raises MetricError for values that are not finite.
    """
    for rows in (queries, gallery):
        if not bool(torch.isfinite(rows.sum(dim=1)).all()):
            raise MetricError("an embedding is not finite: the model is broken")
    ranks, span = list[Ranks](), _longest(queries) * _longest(gallery)
    step = min(max(_SCORES // max(1, len(gallery)), _FEWEST), _MOST)
    for start in range(0, len(queries), step):
        own = range(start, min(start + step, len(queries)))
        block = queries[own.start : own.stop]
        ranks += _block_ranks(block, gallery, truth.part(own), span=span, limit=limit)
    return ranks


def pair_scores(queries: Tensor, gallery: Tensor, pairs: Tensor) -> Tensor:
    """Inner products [T] of the rows named by pairs int64 [2, T] of (query, gallery row)."""
    scores = queries.new_empty(pairs.shape[1])
    for start in range(0, pairs.shape[1], _PAIRS):
        query, row = pairs[:, start : start + _PAIRS]
        scores[start : start + _PAIRS] = (queries[query] * gallery[row]).sum(dim=1)
    return scores


class _Right(NamedTuple):
    """Right pairs in the order of their keys: by query, then by score.

    `pairs` int64 [2, T], keys float64 [T]; `width` is what a key grows by with each query.
    """

    pairs: Tensor
    keys: Tensor
    width: float

    @classmethod
    def of(cls, pairs: Tensor, scores: Tensor, width: float) -> "_Right":
        keys = _key(pairs[0], scores, width)
        order = keys.argsort()
        return cls(pairs[:, order], keys[order], width)

    def beaten(self, query: Tensor, scores: Tensor) -> Tensor:
        """How many right pairs precede or equal each (query, score), earlier queries' too."""
        return torch.searchsorted(self.keys, _key(query, scores, self.width), right=True)


def _block_ranks(
    queries: Tensor, gallery: Tensor, truth: Truth, *, span: float, limit: int | None
) -> list[Ranks]:
    pairs = torch.from_numpy(truth.pairs()).to(gallery.device)
    junk = torch.from_numpy(_pairs(truth.junk)).to(gallery.device)
    scores = queries @ gallery.T
    right = _Right.of(pairs, scores[pairs[0], pairs[1]], 4 * span + 1)
    lowest = scores.new_full((len(queries),), torch.inf)
    lowest = lowest.scatter_reduce(0, pairs[0], scores[pairs[0], pairs[1]], "amin")
    for hidden in (pairs, junk):
        scores[hidden[0], hidden[1]] = -torch.inf
    margin = 2 * _ROUNDING * math.sqrt(queries.shape[1]) * span  # of two products
    if limit is not None and limit <= min(_SAMPLE, len(gallery)):
        # As many wrong answers as the limit: what is below them is of no interest.
        enough = scores[:, :_SAMPLE].topk(limit).values[:, -1]
        lowest = torch.maximum(lowest, enough - margin)
    query, row = (scores >= (lowest - margin)[:, None]).nonzero().unbind(1)
    found = scores[query, row]
    high, low = right.beaten(query, found + margin), right.beaten(query, found - margin)
    doubtful = (high != low).nonzero().flatten()
    if len(doubtful):
        right = _compared(queries, gallery, right, low[doubtful], high[doubtful])
        exact = pair_scores(queries, gallery, torch.stack([query[doubtful], row[doubtful]]))
        high[doubtful] = right.beaten(query[doubtful], exact)
    return _split(_ranks(right, query, high), right.pairs[0], len(queries), limit)


def _compared(queries: Tensor, gallery: Tensor, right: _Right, low: Tensor, high: Tensor) -> _Right:
    """The right pairs, with exact scores where a wrong one is near: those from low to high."""
    steps = torch.zeros(len(right.keys) + 1, dtype=torch.int64, device=low.device)
    steps += torch.bincount(low, minlength=len(steps)) - torch.bincount(high, minlength=len(steps))
    near = (steps.cumsum(0)[:-1] > 0).nonzero().flatten()
    keys = right.keys.clone()
    exact = pair_scores(queries, gallery, right.pairs[:, near])
    keys[near] = _key(right.pairs[0, near], exact, right.width)
    order = keys.argsort()
    return right._replace(pairs=right.pairs[:, order], keys=keys[order])


def _ranks(right: _Right, query: Tensor, beaten: Tensor) -> Tensor:
    """Wrong answers [W], by query and by what they beat -> ranks [T] of the right pairs."""
    owner = right.pairs[0].contiguous()
    own = beaten[beaten > torch.searchsorted(owner, query)]  # else it beats none of its query
    total = torch.bincount(own, minlength=len(owner) + 1).cumsum(0)
    ends = torch.searchsorted(owner, owner, right=True)
    place = torch.arange(len(owner), device=owner.device)
    # Wrong ones that beat this one or a better one of its query, and the better right ones.
    return total[ends] - total[place] + ends - place - 1


def _split(ranks: Tensor, owner: Tensor, num_queries: int, limit: int | None) -> list[Ranks]:
    if limit is not None:
        owner, ranks = owner[ranks < limit], ranks[ranks < limit]
    counts = torch.bincount(owner, minlength=num_queries).cpu().numpy()
    parts = np.split(ranks.cpu().numpy(), np.cumsum(counts)[:-1])
    return [part[::-1] for part in parts]  # the best score has the lowest rank


def _key(query: Tensor, scores: Tensor, width: float) -> Tensor:
    """float64 by which pairs are sorted by query first."""
    return query * width + scores.double()


def _pairs(rows: Sequence[Rows]) -> Rows:
    """Pairs [2, T] of (query, row)."""
    flat = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64)
    return np.stack([np.repeat(np.arange(len(rows)), [len(own) for own in rows]), flat])


def _longest(rows: Tensor) -> float:
    starts = range(0, len(rows), _SAMPLE)
    norms = (rows[start : start + _SAMPLE].norm(dim=1).max() for start in starts)
    return max((float(norm) for norm in norms), default=0.0)
