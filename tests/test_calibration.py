"""The logistic curve from cosine to probability, against scikit-learn and by its promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from multigrain.calibration import Calibration, CalibrationError, fit_calibration


def drawn(num_pairs: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines whose labels are drawn from a known curve: slope 12, intercept -7."""
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-0.2, 1, num_pairs)
    same = rng.random(num_pairs) < Calibration(12, -7).probabilities(cosines)
    return cosines, same


def test_the_fit_finds_the_curve_the_labels_were_drawn_from() -> None:
    """As scikit-learn's unpenalised regression does, of which it differs by the targets only."""
    cosines, same = drawn(20_000)
    found = fit_calibration(cosines, same)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(cosines[:, None], same)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-2)
    assert found.intercept == pytest.approx(oracle.intercept_[0], rel=1e-2)
    assert found.slope == pytest.approx(12, rel=0.1)


@given(slope=st.floats(1e-2, 1e4), intercept=st.floats(-1e4, 1e4))
def test_probabilities_rise_and_stay_between_0_and_1(slope: float, intercept: float) -> None:
    """Whatever the curve: no overflow, no ranking turned round."""
    found = Calibration(slope, intercept).probabilities(np.linspace(-1, 1, 50))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_probability_has_one_cosine() -> None:
    """There and back again."""
    curve = Calibration(12, -7)
    for probability in (0.01, 0.5, 0.99):
        cosine = curve.cosine_of(probability)
        assert curve.probabilities(np.array([cosine]))[0] == pytest.approx(probability)
    with pytest.raises(CalibrationError, match="no cosine"):
        curve.cosine_of(1.0)


def test_pairs_that_a_threshold_parts_give_a_finite_curve() -> None:
    """Platt's targets: certainty grows with the number of pairs, not without end."""
    cosines = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    same = cosines > 0.5
    found = fit_calibration(cosines, same)
    probabilities = found.probabilities(cosines)
    assert np.isfinite(found.slope)
    assert probabilities[2] < 0.5 < probabilities[3] < 0.99


@pytest.mark.parametrize(
    ("cosines", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "both kinds"),
        ([0.1, 0.2], [False, False], "both kinds"),
        ([0.9, 0.8, 0.1, 0.2], [False, False, True, True], "no nearer"),
        ([0.9, float("nan")], [True, False], "not finite"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(
    cosines: list[float], same: list[bool], message: str
) -> None:
    """One kind of pairs, labels upside down, a broken model."""
    with pytest.raises(CalibrationError, match=message):
        fit_calibration(np.array(cosines), np.array(same))
