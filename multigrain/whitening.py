"""PCA whitening of embeddings, fitted on streamed moments.

N photos, C dimensions in, D dimensions out.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.errors import MultiGrainError


class WhiteningError(MultiGrainError):
    """A whitening that cannot be fitted."""


class Whitening(nn.Module):
    """`normalise((x - mean) projection^T)`, in float32, outside autocast (MultiGrain, 3.4)."""

    mean: Tensor
    projection: Tensor

    def __init__(self, mean: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # [C]
        self.register_buffer("projection", projection)  # [D, C]

    def forward(self, embedding: Tensor) -> Tensor:
        """Unit rows [N, C] -> unit rows [N, D]."""
        with torch.autocast(embedding.device.type, enabled=False):
            centred = embedding.float() - self.mean
            return F.normalize(centred @ self.projection.T, dim=1)


class Moments:
    """Streamed count, mean and scatter of rows, in float64.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque (1983), which keeps
    the digits that a sum of squares would lose. Merging moments of parts, in any split,
    equals the moments of the whole to rounding.
    """

    def __init__(self, num_dims: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_dims, dtype=torch.float64)
        self.scatter = torch.zeros(num_dims, num_dims, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add rows [N, C]."""
        if len(rows) == 0:
            return
        wide = rows.detach().to("cpu", torch.float64)
        batch = Moments(wide.shape[1])
        batch.count = len(wide)
        batch.mean = wide.mean(dim=0)
        centred = wide - batch.mean
        batch.scatter = centred.T @ centred
        self.merge(batch)

    def merge(self, other: Self) -> None:
        """Add the rows that another accumulator has seen."""
        total = self.count + other.count
        if total == 0:
            return
        delta = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += torch.outer(delta, delta) * (self.count * other.count / total)
        self.mean = self.mean + delta * (other.count / total)
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """Plain tensors `count`, `mean`, `scatter`, to send to another process."""
        return {
            "count": torch.tensor(self.count, dtype=torch.float64),
            "mean": self.mean,
            "scatter": self.scatter,
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state()` this is."""
        moments = cls(len(state["mean"]))
        moments.count = int(state["count"])
        moments.mean = state["mean"].clone()
        moments.scatter = state["scatter"].clone()
        return moments


class Axes(NamedTuple):
    """Directions of largest variance: eigenvalues [C] descending, vectors [C, C] as columns."""

    values: Tensor
    vectors: Tensor
    mean: Tensor
    num_rows: int


def principal_axes(moments: Moments) -> Axes:
    """The eigenvalues and eigenvectors of the covariance, in float64."""
    values, vectors = torch.linalg.eigh(moments.scatter / max(1, moments.count - 1))
    return Axes(values.flip(0), vectors.flip(1), moments.mean, moments.count)


def fit_whitening(
    moments: Moments, *, dim: int, power: float = 1.0, floor: float = 1e-3
) -> Whitening:
    """Whitening to the `dim` directions of largest variance, as `whiten_along` makes it."""
    return whiten_along(principal_axes(moments), dim=dim, power=power, floor=floor)


def whiten_along(axes: Axes, *, dim: int, power: float, floor: float) -> Whitening:
    """Whitening to the first `dim` axes.

    Each direction is divided by `max(eigenvalue, floor * largest) ** (power / 2)`: power 1 is
    full whitening, 0 a rotation; the floor keeps directions that few photos measured badly
    from being blown up. Raises WhiteningError when `dim` is not in 1..C, or when fewer than
    dim + 1 photos were seen, which leaves directions without any variance.
    """
    num_dims = len(axes.mean)
    if not 1 <= dim <= num_dims:
        raise WhiteningError(f"whitening to {dim} dimensions: choose 1 to {num_dims}")
    if axes.num_rows <= dim:
        raise WhiteningError(
            f"whitening to {dim} dimensions needs more than {dim} photos, {axes.num_rows} were "
            f"given: give more photos or fewer dimensions"
        )
    values, vectors = axes.values[:dim], axes.vectors[:, :dim]
    if not values[0] > 0:
        raise WhiteningError(f"the {axes.num_rows} embeddings are all equal: nothing to whiten")
    scale = values.clamp_min(floor * float(values[0])).pow(-power / 2)
    # A sign fixed by the data, so that two fits of the same moments agree on any machine.
    signs = torch.sign(vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)))
    projection = (vectors * signs * scale).T
    return Whitening(axes.mean.float(), projection.float().contiguous())
