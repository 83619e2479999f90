"""A query's ranking, reduced to what every metric is computed from: the ranks of its positives.

They are 0-based and ascend. Junk is removed before ranks are counted, and ties count against the
model. The metrics themselves are in `multigrain.rank_metrics`.
"""

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError

Ranks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class MetricError(MultiGrainError):
    """Scores that no metric can be computed from."""


def positive_ranks(scores: npt.NDArray[np.floating], relevant: Mask, junk: Mask) -> Ranks:
    """Ranks of the relevant items of one query, from scores [N], relevant [N] and junk [N].

    A positive stands behind every negative of the same score. Junk that is also relevant is
    junk. Raises MetricError for a score that is not finite: a model that returns NaN must not
    pass for a perfect one.
    """
    if not np.isfinite(scores).all():
        raise MetricError("a score is not finite: the embeddings are broken")
    positives = np.sort(scores[relevant & ~junk])[::-1]
    negatives = np.sort(scores[~relevant & ~junk])
    num_at_or_above = len(negatives) - np.searchsorted(negatives, positives, side="left")
    return (num_at_or_above + np.arange(len(positives))).astype(np.int64)
