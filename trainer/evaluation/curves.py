"""Precision by recall of a test set's queries, and the ROC of pairs, as charts.

Q queries, N gallery rows, P pairs.
"""

import numpy as np
import numpy.typing as npt
import torch

from multigrain.exact_ranks import exact_ranks
from multigrain.metrics import Ranks
from multigrain.pair_metrics import Mask, pool_pairs
from multigrain.ranking import Floats
from multigrain.truth import Truth
from trainer.evaluation.compared import Compared
from trainer.finishing.report_svg import Line, line_chart

_MOST_QUERIES = (
    500  # every right answer's rank is looked for: many times slower than the first ones
)
RECALLS = np.linspace(0.0, 1.0, 51)


def precision_recall_chart(truth: Truth, rows: Compared) -> str:
    """The mean over queries with an answer, 500 of them at most, of their precisions by recall."""
    asked = np.flatnonzero(truth.num_positives())
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), _MOST_QUERIES)).astype(int)]
    part = Truth([truth.relevant[one] for one in asked], [truth.junk[one] for one in asked])
    queries, gallery = torch.from_numpy(rows.queries[asked]), torch.from_numpy(rows.gallery)
    means = np.mean([interpolated(one) for one in exact_ranks(queries, gallery, part)], axis=0)
    name = f"mean of {len(asked)} queries"
    return line_chart([Line(name, list(zip(RECALLS.tolist(), means.tolist(), strict=True)))])


def interpolated(ranks: Ranks) -> npt.NDArray[np.float64]:
    """The best precision at each of the recalls or a higher one, of a query's ranks, ascending."""
    found = np.arange(1, len(ranks) + 1)
    best = np.maximum.accumulate((found / (ranks + 1))[::-1])[::-1]
    needed = np.ceil(RECALLS * len(ranks) - 1e-9).astype(int)
    values: npt.NDArray[np.float64] = best[np.maximum(needed, 1) - 1]
    return values


def roc_chart(cosines: Floats, same: Mask) -> str:
    """The share of same pairs [P] accepted by the share of others that is."""
    pooled = pool_pairs(cosines, same)
    shares = [np.append(0, np.cumsum(kind)) / kind.sum() for kind in (~pooled.right, pooled.right)]
    ends = np.append(True, pooled.last_of_score)
    points = list(zip(*(share[ends].tolist() for share in shares), strict=True))
    return line_chart([Line("right pairs accepted by wrong ones", points)])
