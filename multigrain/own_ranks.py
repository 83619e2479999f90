"""Exact ranks of rows among themselves: the product of two rows is made once for both.

N rows, D embedding, T right pairs, b rows of a block, s of the sample.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from multigrain.metrics import Ranks
from multigrain.right_pairs import RightPairs, pair_scores
from multigrain.truth import Rows, Truth

_BLOCK = 1024  # rows of which each is compared with each at once: 4 MiB of scores
_SAMPLE_SHARE, _MOST_SAMPLED = 10, 4  # a tenth of the blocks, at most four, tell a limit
_SHARED = 4  # queries with the same right answers, from which on a product is made of them


def own_ranks(
    rows: Tensor, truth: Truth, *, limit: int | None, span: float, margin: float
) -> list[Ranks]:
    """As `exact_ranks` of rows float32 [N, D] as queries and gallery; no score is beyond `span`.

    Products are right to half the `margin`. Memory beyond the argument is a copy of the rows.
    """
    ranking = _OwnRanking(rows, truth, span=span, margin=margin)
    ranking.count_against_sample(limit)
    ranking.count_others()
    return ranking.right.ranks(limit)


class _OwnRanking:
    """Rows in a random order, so that the first are a sample of all; wrong pairs are counted."""

    def __init__(self, rows: Tensor, truth: Truth, *, span: float, margin: float) -> None:
        num_rows = len(rows)
        self._rows, self._margin = rows, margin
        generator = torch.Generator().manual_seed(0)
        self._order = torch.randperm(num_rows, generator=generator).to(rows.device)
        self._place = self._order.argsort()
        self._mixed = rows[self._order]
        num_blocks = min(_MOST_SAMPLED, -(-num_rows // (_SAMPLE_SHARE * _BLOCK)))
        self._sample = range(min(num_blocks * _BLOCK, num_rows))
        pairs = torch.from_numpy(truth.pairs()).to(rows.device)
        scores = _right_scores(rows, pairs, truth.relevant)
        self.right = RightPairs(rows, rows, pairs, scores, span=span, margin=margin)
        self._hidden = _Hidden(
            torch.cat([pairs, torch.from_numpy(truth.junk_pairs())], dim=1), self._place
        )
        lowest = rows.new_full((num_rows,), torch.inf)
        # By place; below it nothing is of interest.
        lowest = lowest.scatter_reduce(0, pairs[0], scores, "amin")[self._order]
        self._lowest = lowest - margin

    def count_against_sample(self, limit: int | None) -> None:
        """Compare all rows with the sample; with a `limit` find how low any rank below it is."""
        sample = self._sample
        for block in _blocks(0, len(self._rows)):
            scores = self._scores(block, sample)
            if limit is not None and limit <= len(sample):
                self._raise_lowest(scores, block, limit)
            self._count(scores, block, sample, both=block.start >= sample.stop)

    def count_others(self) -> None:
        """Compare the rows that are not in the sample with each other."""
        for block in _blocks(self._sample.stop, len(self._rows)):
            for other in _blocks(block.start, len(self._rows)):
                scores = self._scores(block, other)
                self._count(scores, block, other, both=other != block)

    def _scores(self, block: range, other: range) -> Tensor:
        return self._mixed[block.start : block.stop] @ self._mixed[other.start : other.stop].T

    def _raise_lowest(self, scores: Tensor, block: range, limit: int) -> None:
        """As many wrong answers as the limit: what is below them is of no interest."""
        hidden = self._hidden.within(block, range(scores.shape[1]))
        kept = scores[hidden[0], hidden[1]]
        scores[hidden[0], hidden[1]] = -torch.inf
        enough = scores.topk(limit).values[:, -1] - 2 * self._margin
        scores[hidden[0], hidden[1]] = kept
        own = slice(block.start, block.stop)
        self._lowest[own] = torch.maximum(self._lowest[own], enough)

    def _count(self, scores: Tensor, block: range, other: range, *, both: bool) -> None:
        """Count the pairs of a block and another, with `both` also the other way round."""
        low, turned = self._lowest[block.start : block.stop], self._lowest[other.start : other.stop]
        least = torch.minimum(low[:, None], turned) if both else low[:, None]
        # By numpy, three times as fast.
        near = torch.from_numpy(np.flatnonzero((scores >= least).numpy()))
        first, second, found = near // len(other), near % len(other), scores.view(-1)[near]
        self._count_wrong(first + block.start, second + other.start, found, low[first])
        if both:
            self._count_wrong(second + other.start, first + block.start, found, turned[second])

    def _count_wrong(self, query: Tensor, row: Tensor, scores: Tensor, low: Tensor) -> None:
        """Count what is above what is of interest and is neither right nor junk, by places."""
        wanted = (scores >= low) & ~self._hidden.holds(query, row)
        pairs = torch.stack([self._order[query[wanted]], self._order[row[wanted]]])
        self.right.count(pairs, scores[wanted])


class _Hidden:
    """Pairs [2, n] that are right or junk, by the places of their rows, sorted."""

    def __init__(self, pairs: Tensor, place: Tensor) -> None:
        self._num_rows = len(place)
        by_place = place[pairs]
        self._keys = (by_place[0] * self._num_rows + by_place[1]).sort().values

    def holds(self, query: Tensor, row: Tensor) -> Tensor:
        """Whether each pair is one of them."""
        keys = query * self._num_rows + row
        found = torch.searchsorted(self._keys, keys).clamp(max=max(0, len(self._keys) - 1))
        return self._keys[found] == keys if len(self._keys) else torch.zeros_like(keys).bool()

    def within(self, queries: range, rows: range) -> Tensor:
        """Those of a block, counted from its corner [2, n]."""
        bounds = torch.tensor([queries.start, queries.stop]) * self._num_rows
        start, stop = torch.searchsorted(self._keys, bounds.to(self._keys.device)).tolist()
        query, row = (
            self._keys[start:stop] // self._num_rows,
            self._keys[start:stop] % self._num_rows,
        )
        inside = (row >= rows.start) & (row < rows.stop)
        return torch.stack([query[inside] - queries.start, row[inside] - rows.start])


def _right_scores(rows: Tensor, pairs: Tensor, relevant: Sequence[Rows]) -> Tensor:
    """Scores [T] of right pairs: of queries that share their answers by a product."""
    num_rows, scores = len(rows), rows.new_full((pairs.shape[1],), torch.nan)
    keys = pairs[0] * num_rows + pairs[1]
    sharing = defaultdict[int, list[int]](list)
    for query, own in enumerate(relevant):
        if len(own):
            sharing[id(own)].append(query)
    for queries in sharing.values():
        if len(queries) < _SHARED:
            continue
        asked, answers = torch.tensor(queries), torch.from_numpy(relevant[queries[0]])
        wanted = (asked[:, None] * num_rows + answers).flatten().to(rows.device)
        found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        counts = keys[found] == wanted  # not junk
        scores[found[counts]] = (rows[asked] @ rows[answers].T).flatten()[counts]
    left = scores.isnan().nonzero().flatten()
    scores[left] = pair_scores(rows, rows, pairs[:, left])
    return scores


def _blocks(start: int, stop: int) -> Iterator[range]:
    for first in range(start, stop, _BLOCK):
        yield range(first, min(first + _BLOCK, stop))
