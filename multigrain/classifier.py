"""Classifiers beside the embedding, as they answer after training.

N batch, E dimensions of e, K classes. The margins of a cosine head belong to training alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.document import ClassifierKind


class LinearClassifier(nn.Linear):
    """`logits = e W^T + b`, in float32, outside autocast."""

    def logits(self, vectors: Tensor) -> Tensor:
        """Vectors e [N, E] -> logits [N, K]."""
        with torch.autocast(vectors.device.type, enabled=False):
            return super().forward(vectors)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors e [N, E] -> logits [N, K]."""
        return self.logits(vectors)


class CosineClassifier(nn.Module):
    """`logits = scale * cos(e, w_k)`, in float32: ArcFace and its kin without their margin.

    Deng et al. 2019 (ArcFace, 3.1), Wang et al. 2018 (CosFace), Huang et al. 2020
    (CurricularFace), Sun et al. 2020 (circle loss, class-level form). `scale` is a number of
    the document, not a weight.
    """

    def __init__(self, num_dims: int, num_classes: int, *, scale: float) -> None:
        super().__init__()
        # Rows of length about 1: the gradient of a direction goes with 1 / length.
        self.weight = nn.Parameter(torch.randn(num_classes, num_dims) * num_dims**-0.5)
        self.scale = scale

    def cosines(self, vectors: Tensor) -> Tensor:
        """Vectors e [N, E], of any length -> cosines [N, K] to the classes' directions."""
        with torch.autocast(vectors.device.type, enabled=False):
            wide = vectors if vectors.dtype == torch.float64 else vectors.float()
            return F.normalize(wide, dim=1) @ F.normalize(self.weight, dim=1).T

    def logits(self, vectors: Tensor) -> Tensor:
        """Vectors e [N, E] -> logits [N, K]."""
        return self.scale * self.cosines(vectors)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors e [N, E] -> logits [N, K]."""
        return self.logits(vectors)


def build_classifier(
    kind: ClassifierKind, *, num_dims: int, num_classes: int, scale: float | None
) -> LinearClassifier | CosineClassifier:
    """The classifier of a name with random weights; `scale` is given for cosine kinds alone."""
    if kind == "linear":
        return LinearClassifier(num_dims, num_classes)
    assert scale is not None
    return CosineClassifier(num_dims, num_classes, scale=scale)
