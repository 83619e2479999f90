"""Near-duplicates among what was found: the best stays and says for how many it stands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_fixtures import random_units
from pydantic import TypeAdapter, ValidationError

from index.searching.alike import Dedup, Kept, collapse, dedup_cosine
from multigrain.calibration import Calibration


def slow_collapse(rows: np.ndarray, cosine: float, at_most: int) -> Kept:
    """One row after the other, against those that stay."""
    kept, counts = list[int](), list[int]()
    for place, row in enumerate(rows):
        near = [number for number, one in enumerate(kept) if rows[one] @ row >= cosine - 1e-6]
        if near:
            counts[near[0]] += 1
        elif len(kept) < at_most:
            kept.append(place)
            counts.append(0)
    return Kept(np.array(kept), np.array(counts))


@given(
    num_rows=st.integers(0, 150),
    cosine=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    at_most=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_the_best_of_what_is_alike_stands_for_the_others(
    num_rows: int, cosine: float, at_most: int, seed: int
) -> None:
    """As row by row, over the borders of blocks, whatever number is wanted."""
    rows = random_units(40, seed=seed)[np.random.default_rng(seed).integers(0, 40, num_rows)]
    found, expected = collapse(rows, cosine, at_most=at_most), slow_collapse(rows, cosine, at_most)
    assert found.places.tolist() == expected.places.tolist()
    assert found.num_collapsed.tolist() == expected.num_collapsed.tolist()


def test_what_counts_as_one_photo() -> None:
    """A number as it is, the calibration's 0.9 or, without one, 0.98; no cosine is above 1."""
    assert dedup_cosine(dedup=False, calibration=None) is None
    assert dedup_cosine(dedup=0.7, calibration=None) == 0.7
    assert dedup_cosine(dedup=True, calibration=None) == 0.98
    curve = Calibration(slope=10, intercept=-5)
    (probability,) = curve.probabilities(np.array([dedup_cosine(dedup=True, calibration=curve)]))
    assert probability == pytest.approx(0.9)
    assert dedup_cosine(dedup=True, calibration=Calibration(1, -5)) == 1.0
    assert dedup_cosine(dedup=0.7, calibration=curve) == 0.7


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [("true", True), ("False", False), (True, True), ("1", 1.0), (1, 1.0), ("0.98", 0.98)],
)
def test_a_word_or_a_cosine_says_what_to_collapse(given_as: object, expected: object) -> None:
    """From a command line, a form, or YAML."""
    found = TypeAdapter(Dedup).validate_python(given_as)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("given_as", ["0", "1.01", "nan", "-inf", "yes", "", None, []])
def test_what_is_no_cosine_is_refused(given_as: object) -> None:
    """Zero too: it would collapse what has nothing in common."""
    with pytest.raises(ValidationError, match="true, false, or a cosine"):
        TypeAdapter(Dedup).validate_python(given_as)
