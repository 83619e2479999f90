"""GeM against its formula, and where the formula itself fails."""

import numpy as np
import pytest
import torch

from multigrain.pooling import GeM


@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_gem_is_the_generalised_mean(p: float) -> None:
    """Value by the formula in float64, negatives clamped to 1e-6."""
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    expected = np.power(np.mean(np.maximum(x.numpy(), 1e-6) ** p, axis=(2, 3)), 1 / p)
    np.testing.assert_allclose(GeM(p).double()(x).numpy(), expected, rtol=1e-9)


def test_a_large_exponent_gives_the_maximum() -> None:
    """At p = 200 the pooled value is within 3 % of the largest."""
    x = torch.rand(1, 4, 6, 6)
    assert torch.allclose(GeM(200.0)(x), x.amax(dim=(2, 3)), rtol=0.03)


@pytest.mark.parametrize("p", [1.0, 8.0, 30.0])
def test_dead_channels_have_finite_values_and_gradients(p: float) -> None:
    """All-zero channels neither underflow nor make the gradient of p NaN."""
    pool = GeM(p, learnable=True)
    x = torch.cat([torch.zeros(1, 2, 7, 7), torch.rand(1, 2, 7, 7)], dim=1).requires_grad_()
    pool(x).sum().backward()
    assert torch.isfinite(pool(x)).all()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(pool.p.grad).all()  # type: ignore[arg-type]


def test_gradients_equal_finite_differences() -> None:
    """The factored maximum changes neither the gradient of x nor that of p."""
    x = (torch.rand(2, 3, 2, 2, dtype=torch.float64) + 0.1).requires_grad_()
    pool = GeM(3.0, learnable=True).double()
    assert torch.autograd.gradcheck(pool, (x,))
    pool(x).sum().backward()
    step = 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            moved = GeM(3.0 + sign * step).double()
            moved.p = torch.tensor(3.0 + sign * step, dtype=torch.float64)
            values.append(moved(x).sum())
    assert pool.p.grad == pytest.approx((values[0] - values[1]).item() / (2 * step), rel=1e-5)


def test_pooling_is_float32_under_autocast() -> None:
    """Half-precision features are pooled in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        pooled = GeM(3.0)(torch.rand(1, 2, 3, 3, dtype=torch.bfloat16))
    assert pooled.dtype == torch.float32
