"""How a test set's first metric changes with the exponent, the size, and the dimensions kept.

n pictures, D embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from multigrain.page import card
from multigrain.ranking import Floats
from trainer.evaluation.models import Change, Models
from trainer.finishing.report_svg import Line, Mark, line_chart
from trainer.protocols.test_set import QuerySet

_FEWEST_DIMENSIONS = 8

# The first metric of a test set by unit vectors [n, D] of its pictures.
Score = Callable[[QuerySet, Floats], float]


class Curve(NamedTuple):
    """Values of a metric by what was changed, ascending; `own` is the value in use."""

    changed: str
    metric: str
    own: float
    points: list[tuple[float, float]]

    def as_card(self) -> str:
        """The curve as a chart for a page."""
        line = Line(self.metric, self.points, dots=True)
        chart = line_chart([line], marks=[Mark("in use", self.own)])
        return card(f"{self.metric} by {self.changed}", chart)


def first_metric(test_set: QuerySet) -> str:
    """The full name of the metric that curves and pictures are shown by."""
    name = next(iter(test_set.truths))
    return f"{name}.{test_set.metrics[0]}" if name else test_set.metrics[0]


def sweep(
    test_sets: Sequence[QuerySet],
    models: Models,
    changes: Mapping[float, Change],
    score: Score,
    *,
    changed: str,
    own: float,
) -> list[Curve]:
    """The curve of each test set by the values of what is changed."""
    curves = [Curve(changed, first_metric(test_set), own, []) for test_set in test_sets]
    for value, change in sorted(changes.items()):
        embedder = models.open(change)
        models.say(f"again with {changed} {value:g}")
        for curve, test_set in zip(curves, test_sets, strict=True):
            vectors = models.embed(embedder, test_set.pictures)
            curve.points.append((value, score(test_set, vectors)))
    return curves


def dimension_curve(test_set: QuerySet, vectors: Floats, score: Score) -> Curve:
    """The curve of the first D, D/2, D/4 ... dimensions of a whitened model's vectors [n, D].

    Its dimensions come in the order of their eigenvalues, so the first of them, at unit length
    again, are what a whitening to so many gives.
    """
    dim, points = vectors.shape[1], list[tuple[float, float]]()
    kept = dim
    while kept >= min(_FEWEST_DIMENSIONS, dim):
        first = vectors[:, :kept]
        norms = np.linalg.norm(first, axis=1, keepdims=True)
        units = np.divide(first, norms, out=np.zeros_like(first), where=norms > 0)
        points.append((float(kept), score(test_set, units)))
        kept //= 2
    return Curve("dimensions", first_metric(test_set), float(dim), points[::-1])
