"""Whitening against numpy, and streamed moments against those of the whole."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multigrain.whitening import Moments, WhiteningError, fit_whitening, principal_axes


def rows(num_rows: int, num_dims: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(num_dims, num_dims, generator=generator)
    return F.normalize(torch.randn(num_rows, num_dims, generator=generator) @ mixing + 1, dim=1)


def distances(x: Tensor) -> Tensor:
    return (x[:, None] - x[None]).norm(dim=2)


def moments_of(x: Tensor) -> Moments:
    moments = Moments(x.shape[1])
    moments.update(x)
    return moments


@given(cuts=st.lists(st.integers(0, 40), max_size=5))
def test_streamed_moments_equal_those_of_the_whole(cuts: list[int]) -> None:
    """Any split into batches, with one part sent through its state, gives the same moments."""
    x = rows(40, 6)
    bounds = [0, *sorted(cuts), 40]
    moments = Moments(6)
    for start, stop in itertools.pairwise(bounds):
        moments.merge(Moments.from_state(moments_of(x[start:stop]).state()))
    assert moments.count == 40
    np.testing.assert_allclose(moments.mean, x.double().mean(dim=0), atol=1e-12)
    np.testing.assert_allclose(moments.scatter / 39, np.cov(x.double().numpy().T), atol=1e-12)


def test_whitened_rows_have_unit_covariance_before_normalisation() -> None:
    """Full whitening without a floor gives the identity."""
    x = rows(500, 8)
    whitening = fit_whitening(moments_of(x), dim=8, floor=0.0)
    projected = (x - whitening.mean) @ whitening.projection.T
    np.testing.assert_allclose(np.cov(projected.numpy().T), np.eye(8), atol=1e-3)


def test_full_whitening_is_that_of_scikit_learn() -> None:
    """The same projections as PCA(whiten=True), up to the sign of a direction."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = rows(300, 12)
    whitening = fit_whitening(moments_of(x), dim=5, floor=0.0)
    ours = (x - whitening.mean) @ whitening.projection.T
    theirs = decomposition.PCA(5, whiten=True, svd_solver="full").fit_transform(x.double().numpy())
    signs = np.sign((ours.numpy() * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-3)


def test_the_spectrum_is_that_of_numpy() -> None:
    """Eigenvalues of the covariance, the largest first."""
    x = rows(60, 7).double()
    axes = principal_axes(moments_of(x))
    np.testing.assert_allclose(
        axes.values, np.linalg.eigvalsh(np.cov(x.numpy().T))[::-1], atol=1e-12
    )


def test_the_output_is_unit_and_has_the_dimension_asked_for() -> None:
    """[N, C] becomes unit rows [N, D], also under autocast."""
    x = rows(100, 8)
    whitening = fit_whitening(moments_of(x), dim=3)
    with torch.autocast("cpu", torch.bfloat16):
        out = whitening(x)
    assert out.shape == (100, 3)
    assert out.dtype == torch.float32
    assert torch.allclose(out.norm(dim=1), torch.ones(100), atol=1e-5)


def test_power_zero_only_rotates() -> None:
    """Distances between centred rows stay as they were."""
    x = rows(50, 5)
    whitening = fit_whitening(moments_of(x), dim=5, power=0.0)
    projected = (x - whitening.mean) @ whitening.projection.T
    np.testing.assert_allclose(distances(projected), distances(x), atol=1e-4)


def test_the_floor_bounds_what_is_amplified() -> None:
    """No direction is scaled by more than floor * largest eigenvalue allows."""
    moments = moments_of(rows(12, 10))
    largest = torch.linalg.eigvalsh(moments.scatter / 11)[-1]
    whitening = fit_whitening(moments, dim=10, floor=0.01)
    assert whitening.projection.norm(dim=1).max() <= (0.01 * largest) ** -0.5 * 1.0001


@pytest.mark.parametrize(
    ("num_rows", "dim", "message"),
    [(3, 8, "more than 8 photos, 3 were given"), (50, 9, "choose 1 to 8"), (50, 0, "choose")],
)
def test_what_cannot_be_fitted_is_refused(num_rows: int, dim: int, message: str) -> None:
    """Too few photos or too many dimensions are errors that say what to do."""
    with pytest.raises(WhiteningError, match=message):
        fit_whitening(moments_of(rows(num_rows, 8)), dim=dim)


def test_equal_embeddings_cannot_be_whitened() -> None:
    """A collapsed model is named instead of divided by zero."""
    with pytest.raises(WhiteningError, match="all equal"):
        fit_whitening(moments_of(torch.ones(20, 4)), dim=2)
