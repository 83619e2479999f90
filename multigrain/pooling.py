"""Generalised-mean pooling.

N batch, C channels, h w positions.
"""

import torch
from torch import Tensor, nn

_EPS = 1e-6


class GeM(nn.Module):
    """Generalised mean over positions: `(mean_u max(x_cu, 1e-6)^p)^(1/p)` (MultiGrain, 3.1).

    p = 1 is the mean (of clamped values), p -> infinity the maximum. Always in float32 (or
    float64 when given float64). The channel maximum is factored out before the power, so
    that value and gradient of p stay finite for a dead channel and for p up to 30 and more,
    where `max(x, 1e-6)^p` itself underflows.
    """

    p: Tensor

    def __init__(self, p: float, *, learnable: bool = False) -> None:
        super().__init__()
        value = torch.tensor(float(p))
        if learnable:
            self.p = nn.Parameter(value)
        else:
            self.register_buffer("p", value)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, h, w] of any floating type -> [N, C], at least float32, positive."""
        with torch.autocast(features.device.type, enabled=False):
            wide = features if features.dtype == torch.float64 else features.float()
            x = wide.clamp_min(_EPS).flatten(2)
            # The shift cancels in value, so it needs no gradient of its own.
            peak = x.detach().amax(dim=2, keepdim=True)
            mean = (x / peak).pow(self.p).mean(dim=2)
            return peak.squeeze(2) * mean.pow(1 / self.p)
