"""Pooling: a map of features becomes one vector.

N batch, C channels, h w positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multigrain.document import PoolingKind

_EPS = 1e-6
# Below it 1 / p would blow rounding up; a learned exponent is never used below.
SMALLEST_P = 0.1


class Pooling(nn.Module, ABC):
    """Feature map [N, C, h, w] of any floating type -> [N, C], at least float32.

    `p` is the exponent of GeM, None for every other kind.
    """

    p: Tensor | None

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C] in float32, float64 when given float64, autocast or not."""
        with torch.autocast(features.device.type, enabled=False):
            wide = features if features.dtype == torch.float64 else features.float()
            return self.pool(wide.flatten(2))

    @abstractmethod
    def pool(self, positions: Tensor) -> Tensor:
        """[N, C, h w] -> [N, C]."""

    @property
    def exponent(self) -> Tensor | None:
        """The exponent as it is used: `p`, or `SMALLEST_P` where a learned p is below it."""
        return self.p


class GeM(Pooling):
    """Generalised mean over positions: `(mean_u max(x_cu, 1e-6)^p)^(1/p)` (MultiGrain, 3.1).

    p = 1 is the mean (of clamped values), p -> infinity the maximum. The channel maximum is
    factored out before the power, so that value and gradient of p stay finite for a dead
    channel and for p up to 30 and more, where `max(x, 1e-6)^p` itself underflows.

    A learned p that an optimiser pushes below 0.1 is used as 0.1; its gradient passes, so that
    it can come back. Negative features count as 1e-6: on a trunk whose map has both signs
    (ViT, Swin, ConvNeXt) `avg` loses less.
    """

    p: Tensor

    def __init__(self, p: float, *, learnable: bool = False) -> None:
        super().__init__()
        value = torch.tensor(float(p))
        if learnable:
            self.p = nn.Parameter(value)
        else:
            self.register_buffer("p", value)

    def pool(self, positions: Tensor) -> Tensor:
        """[N, C, h w] -> [N, C], positive."""
        p = self.exponent
        x = positions.clamp_min(_EPS)
        # The shift cancels in value, so it needs no gradient of its own.
        peak = x.detach().amax(dim=2, keepdim=True)
        mean = (x / peak).pow(p).mean(dim=2)
        return peak.squeeze(2) * mean.pow(1 / p)

    @property
    def exponent(self) -> Tensor:
        """The exponent as it is used, with the gradient of `p`."""
        if not isinstance(self.p, nn.Parameter):
            return self.p
        return self.p + (self.p.clamp_min(SMALLEST_P) - self.p).detach()


class Mean(Pooling):
    """The mean over positions."""

    p = None

    def pool(self, positions: Tensor) -> Tensor:
        """[N, C, h w] -> [N, C]."""
        return positions.mean(dim=2)


class Max(Pooling):
    """The largest value over positions."""

    p = None

    def pool(self, positions: Tensor) -> Tensor:
        """[N, C, h w] -> [N, C]."""
        return positions.amax(dim=2)


class MeanMax(Pooling):
    """The sum of mean and maximum over positions; as many dimensions as channels."""

    p = None

    def pool(self, positions: Tensor) -> Tensor:
        """[N, C, h w] -> [N, C]."""
        return positions.mean(dim=2) + positions.amax(dim=2)


def build_pooling(kind: PoolingKind, *, p: float | None, learnable_p: bool = False) -> Pooling:
    """The pooling of a name; `p` is given for `gem` alone."""
    if kind == "gem":
        assert p is not None
        return GeM(p, learnable=learnable_p)
    kinds: dict[str, Callable[[], Pooling]] = {"avg": Mean, "max": Max, "avg+max": MeanMax}
    return kinds[kind]()
