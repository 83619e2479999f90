"""The curve through pairs, as a manifest carries it."""

import numpy as np
from numpy.typing import NDArray

from index.calibration.pairs import Pairs
from index.manifest import CalibrationPart, CalibrationSource
from multigrain.calibration import calibration_error, fit_calibration


def fit_pairs(pairs: Pairs, *, source: CalibrationSource) -> CalibrationPart:
    """Fit all pairs; the error is that of each half of the queries by the curve of the other.

    Raises CalibrationError.
    """
    curve = fit_calibration(pairs.cosines, pairs.same)
    halves = [pairs.queries % 2 == half for half in range(2)]
    errors = [
        _error(pairs, fitted, judged)
        for fitted, judged in (halves, halves[::-1])
        if 0 < pairs.same[fitted].sum() < fitted.sum() and judged.any()
    ]
    return CalibrationPart(
        slope=curve.slope,
        intercept=curve.intercept,
        source=source,
        num_same=int(pairs.same.sum()),
        num_other=int((~pairs.same).sum()),
        error=float(np.mean(errors)) if errors else None,
    )


def _error(pairs: Pairs, fitted: NDArray[np.bool_], judged: NDArray[np.bool_]) -> float:
    curve = fit_calibration(pairs.cosines[fitted], pairs.same[fitted])
    return calibration_error(curve.probabilities(pairs.cosines[judged]), pairs.same[judged])
