"""Right pairs in the order of their scores, and how many wrong ones precede each.

Q queries, N gallery rows, D embedding, T right pairs, M wrong pairs.
"""

import numpy as np
import torch
from torch import Tensor

from multigrain.metrics import Ranks

_PAIRS = 1024  # rows multiplied one by one at once: 8 MiB each at 2048 dimensions
_DOUBTFUL = 1 << 20  # wrong pairs that wait to be compared: 24 MiB


def pair_scores(queries: Tensor, gallery: Tensor, pairs: Tensor) -> Tensor:
    """Inner products [T] of the rows named by pairs int64 [2, T] of (query, gallery row)."""
    scores = queries.new_empty(pairs.shape[1])
    for start in range(0, pairs.shape[1], _PAIRS):
        query, row = pairs[:, start : start + _PAIRS]
        scores[start : start + _PAIRS] = (queries[query] * gallery[row]).sum(dim=1)
    return scores


class RightPairs:
    """Right pairs int64 [2, T] by query, then by score, and the wrong pairs that were counted.

    A wrong pair is counted by how many right ones it precedes or equals. Which those are is sure
    where its score, of a product, is farther than a margin from all of theirs; others are
    compared by products of single rows, which come out the same however they are made.
    """

    def __init__(
        self,
        queries: Tensor,
        gallery: Tensor,
        pairs: Tensor,
        scores: Tensor,
        *,
        span: float,
        margin: float,
    ) -> None:
        """Sort the pairs, which are so by query, by their scores [T].

        Scores of products, of two right ones as of wrong and right, are apart by the `margin`
        where their order is sure; none is farther from 0 than the `span`.
        """
        self._queries, self._gallery = queries, gallery
        self._width, self._margin = 4 * span + 1, margin
        keys = self._key(pairs[0], scores)
        order = keys.argsort()
        self._pairs, self._keys = pairs[:, order], keys[order]
        numbers = torch.arange(len(queries), device=pairs.device)
        self._starts = torch.searchsorted(self._pairs[0].contiguous(), numbers)
        self._counts = torch.zeros(len(keys) + 1, dtype=torch.int64, device=pairs.device)
        self._doubtful, self._num_doubtful = list[tuple[Tensor, Tensor]](), 0

    def count(self, pairs: Tensor, scores: Tensor) -> None:
        """Count wrong pairs int64 [2, M] by their scores [M], of a product."""
        low, high = self._bounds(pairs, scores)
        is_sure = low == high
        self._add(pairs[0][is_sure], high[is_sure])
        doubtful = (~is_sure).nonzero().flatten()
        if len(doubtful):
            self._doubtful.append((pairs[:, doubtful], scores[doubtful]))
            self._num_doubtful += len(doubtful)
        if self._num_doubtful > _DOUBTFUL:
            self._settle()

    def _settle(self) -> None:
        """Compare what was doubtful, and the right ones that are near, by exact scores.

        No right one passes a wrong one that is farther from it, so what was counted holds.
        """
        if not self._doubtful:
            return
        all_pairs, all_scores = zip(*self._doubtful, strict=True)
        pairs, scores = torch.cat(all_pairs, dim=1), torch.cat(all_scores)
        self._doubtful, self._num_doubtful = [], 0
        self._compare(*self._bounds(pairs, scores))
        exact = pair_scores(self._queries, self._gallery, pairs)
        self._add(pairs[0], self._beaten(pairs[0], exact))

    def _bounds(self, pairs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """How many right pairs each wrong one beats for sure [M], and at most [M]."""
        low = self._beaten(pairs[0], scores - self._margin)
        return low, self._beaten(pairs[0], scores + self._margin)

    def _add(self, query: Tensor, beaten: Tensor) -> None:
        own = beaten[beaten > self._starts[query]]  # else it beats none of its query
        self._counts.scatter_add_(0, own, torch.ones_like(own))

    def ranks(self, limit: int | None) -> list[Ranks]:
        """The ranks of each query's right pairs, ascending; with a `limit` those below it."""
        self._settle()
        owner, total = self._pairs[0].contiguous(), self._counts.cumsum(0)
        ends = torch.searchsorted(owner, owner, right=True)
        place = torch.arange(len(owner), device=owner.device)
        # Wrong ones that beat this one or a better one of its query, and the better right ones.
        ranks = total[ends] - total[place] + ends - place - 1
        if limit is not None:
            owner, ranks = owner[ranks < limit], ranks[ranks < limit]
        counts = torch.bincount(owner, minlength=len(self._queries)).cpu().numpy()
        parts = np.split(ranks.cpu().numpy(), np.cumsum(counts)[:-1])
        return [part[::-1] for part in parts]  # the best score has the lowest rank

    def _beaten(self, query: Tensor, scores: Tensor) -> Tensor:
        """How many right pairs precede or equal each (query, score), earlier queries' too."""
        return torch.searchsorted(self._keys, self._key(query, scores), right=True)

    def _compare(self, low: Tensor, high: Tensor) -> None:
        """Take exact scores where a wrong pair is near: of the right ones from low to high."""
        steps = torch.zeros(len(self._keys) + 1, dtype=torch.int64, device=low.device)
        steps += torch.bincount(low, minlength=len(steps))
        steps -= torch.bincount(high, minlength=len(steps))
        near = (steps.cumsum(0)[:-1] > 0).nonzero().flatten()
        exact = pair_scores(self._queries, self._gallery, self._pairs[:, near])
        self._keys[near] = self._key(self._pairs[0, near], exact)
        order = self._keys.argsort()
        self._pairs, self._keys = self._pairs[:, order], self._keys[order]

    def _key(self, query: Tensor, scores: Tensor) -> Tensor:
        """float64 by which pairs are sorted by query first."""
        return query * self._width + scores.double()
