"""From a cosine to the probability that two photos show the same thing.

A logistic curve: two numbers, so a few hundred pairs suffice and nothing is learned of their
noise; strictly rising, so that it changes no ranking and every probability has one cosine. An
isotonic fit would bend where the curve does not, but needs thousands of pairs, makes steps on
which different cosines look equal, and says nothing beyond the pairs it saw.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError

Values = npt.NDArray[np.floating]

_MAX_STEPS = 100
_MIN_GAIN = 1e-12
_RIDGE = 1e-9


class CalibrationError(MultiGrainError):
    """Pairs from which no probability can be learned."""


class Calibration(NamedTuple):
    """`probability = 1 / (1 + exp(-(slope * cosine + intercept)))`, slope > 0."""

    slope: float
    intercept: float

    def probabilities(self, cosines: Values) -> npt.NDArray[np.float64]:
        """Of any shape, in 0..1."""
        # Two forms of one formula: neither lets exp overflow.
        logits = self.slope * np.asarray(cosines, np.float64) + self.intercept
        small = np.exp(-np.abs(logits))
        values: npt.NDArray[np.float64] = np.where(logits >= 0, 1, small) / (1 + small)
        return values

    def cosine_of(self, probability: float) -> float:
        """The cosine of a probability between 0 and 1; it may lie outside [-1, 1]."""
        if not 0 < probability < 1:
            raise CalibrationError(f"no cosine has the probability {probability}")
        logit = np.log(probability / (1 - probability))
        return float((logit - self.intercept) / self.slope)


def fit_calibration(cosines: Values, same: npt.NDArray[np.bool_]) -> Calibration:
    """Fit cosines [n] of pairs and whether each shows the same thing, bool [n].

    Maximum likelihood towards the targets of Platt ("Probabilistic outputs for support vector
    machines", 1999), which stay finite where a threshold parts the pairs. Raises
    CalibrationError where a kind of pairs is missing, or same pairs are not nearer.
    """
    num_same, num_other = int(same.sum()), int((~same).sum())
    if not num_same or not num_other:
        raise CalibrationError(
            f"{num_same} pairs show the same thing and {num_other} do not: both kinds are needed"
        )
    if not np.isfinite(cosines).all():
        raise CalibrationError("a cosine is not finite: the model is broken")
    targets = np.where(same, (num_same + 1) / (num_same + 2), 1 / (num_other + 2))
    slope, intercept = _newton(np.asarray(cosines, np.float64), targets)
    if not slope > 0:
        raise CalibrationError(
            "pairs that show the same thing are no nearer than others: the model does not tell "
            "them apart, or the labels are wrong"
        )
    return Calibration(slope, intercept)


def calibration_error(
    probabilities: Values, same: npt.NDArray[np.bool_], *, num_bins: int = 10
) -> float:
    """Mean distance of probability and share of same pairs, over bins of as many pairs each."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(num_bins, len(order)))
    gaps = [len(part) * abs(probabilities[part].mean() - same[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def _newton(cosines: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> list[float]:
    """Slope and intercept of least cross-entropy; a step that gains nothing is halved."""
    centre = cosines.mean()
    features = np.stack([cosines - centre, np.ones_like(cosines)])
    weights = np.zeros(2)
    loss = _cross_entropy(weights @ features, targets)
    for _ in range(_MAX_STEPS):
        found = 1 / (1 + np.exp(-(weights @ features)))
        gradient = features @ (found - targets)
        curvature = (features * (found * (1 - found))) @ features.T
        step = np.linalg.solve(curvature + _RIDGE * np.eye(2), gradient)
        while (now := _cross_entropy((weights - step) @ features, targets)) > loss:
            step = step / 2
            if not np.abs(step).max() > _MIN_GAIN:
                break
        if not now < loss:
            break
        weights, loss = weights - step, now
    return [float(weights[0]), float(weights[1] - weights[0] * centre)]


def _cross_entropy(logits: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).sum())
