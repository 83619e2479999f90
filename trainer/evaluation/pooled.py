"""Scores of the pairs of all queries together: one threshold for all, normalised or not.

Q queries, N gallery rows, M background rows, D embedding, P pooled pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from multigrain.background import normalised_gallery, normalised_queries
from multigrain.bootstrap import Counts
from multigrain.pair_metrics import Pooled, micro_ap, pool_pairs, recall_at_precision_90
from multigrain.ranking import Floats, exact_search
from multigrain.truth import Rows, Truth
from trainer.engine.processes import Processes
from trainer.evaluation.compared import Compared
from trainer.losses.gather import own_slice

# The best of each query, and of all (what DISC21 lets one hand in).
CANDIDATES = 10
MOST_CANDIDATES = 500_000

# A score of all, or where the queries were drawn as often as the counts say.
Measure = Callable[[Counts | None], float]


class Pool(NamedTuple):
    """Pairs of all queries, whose each one is [P], and how many right ones each query has [Q]."""

    pairs: Pooled
    query: Rows
    num_right: Rows

    def micro_ap(self, counts: Counts | None) -> float:
        """Average precision of the pairs; raises MetricError."""
        return self._measured(micro_ap, counts)

    def recall_at_precision_90(self, counts: Counts | None) -> float:
        """The share of right pairs found while nine of ten pairs are; raises MetricError."""
        return self._measured(recall_at_precision_90, counts)

    def _measured(self, measure: Callable[..., float], counts: Counts | None) -> float:
        if counts is None:
            return measure(self.pairs, float(self.num_right.sum()))
        return measure(self.pairs, float(self.num_right @ counts), counts[self.query])


def pooled_measures(
    rows: Compared, truth: Truth, processes: Processes, background: Floats | None
) -> dict[str, Measure]:
    """Measures of the best pairs by name; with a background [M, D] of normalised scores, too.

    Normalised the pairs of a query stay in their order: what changes is how queries compare.
    """
    plain = _pool(rows, truth, processes, None)
    measures: dict[str, Measure] = {
        "micro_ap": plain.micro_ap,
        "recall_at_precision_90": plain.recall_at_precision_90,
    }
    if background is None:
        return measures
    normalised = _pool(rows, truth, processes, background)
    return measures | {
        "micro_ap_normalised": normalised.micro_ap,
        "recall_at_precision_90_normalised": normalised.recall_at_precision_90,
        "micro_ap_gain": lambda counts: normalised.micro_ap(counts) - plain.micro_ap(counts),
    }


def _pool(rows: Compared, truth: Truth, processes: Processes, background: Floats | None) -> Pool:
    """The best candidates of every query, each process having searched for a part of them."""
    own = own_slice(len(rows.queries))
    queries, gallery = rows.queries[own.start : own.stop], rows.gallery
    if background is not None:
        queries = normalised_queries(queries, background)
        gallery = normalised_gallery(gallery)
    most_junk = max((len(rows) for rows in truth.junk), default=0)
    part = exact_search(queries, gallery, CANDIDATES + most_junk)
    parts = zip(*processes.gather(tuple(part)), strict=True)
    scores, found = (np.concatenate(some) for some in parts)
    relevant = np.split(truth.pairs()[1], np.cumsum(truth.num_positives())[:-1])
    right = np.stack([np.isin(*pair) for pair in zip(found, relevant, strict=True)])
    counted = ~np.stack([np.isin(*pair) for pair in zip(found, truth.junk, strict=True)])
    counted &= counted.cumsum(axis=1) <= CANDIDATES
    query = np.broadcast_to(np.arange(len(found))[:, None], found.shape)[counted]
    best = np.argsort(-scores[counted], kind="stable")[:MOST_CANDIDATES]
    pairs = pool_pairs(scores[counted][best], right[counted][best])
    return Pool(pairs, query[best], np.array([len(one) for one in relevant]))
