"""The model: trunk, GeM, classifier beside the embedding, whitening behind it.

N batch, C channels, D embedding, K classes.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.backbone import Backbone, build_backbone
from multigrain.document import Document
from multigrain.errors import MultiGrainError
from multigrain.pooling import GeM
from multigrain.whitening import Whitening


class ModelError(MultiGrainError):
    """A model whose parts do not fit together."""


class Output(NamedTuple):
    """Unit embeddings [N, D] in float32, and logits [N, K] or None without a classifier."""

    embedding: Tensor
    logits: Tensor | None


class MultiGrain(nn.Module):
    """`trunk -> GeM -> e`; the classifier works on e, the embedding is e / |e|, whitened.

    MultiGrain, section 3. Normalisation by mean and standard deviation is the first
    operation, so pixels enter as they are decoded: RGB in 0..255.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        pool: GeM,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        classifier: nn.Linear | None = None,
        whiten: Whitening | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.classifier = classifier
        self.whiten = whiten
        # Constants of the document, not weights: kept out of the state dict.
        shape = (1, 3, 1, 1)
        self.register_buffer("pixel_mean", 255 * torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(std).view(shape), persistent=False)

    @classmethod
    def build(cls, document: Document, *, learnable_p: bool = False) -> Self:
        """The model a document describes, with random weights and an empty whitening.

        Raises ModelError when the trunk's channels are not what the document says.
        """
        backbone = build_backbone(document.backbone.name)
        num_dims = document.backbone.feature_dim
        if backbone.num_channels != num_dims:
            raise ModelError(
                f"{backbone.name} gives {backbone.num_channels} channels, "
                f"the document says {num_dims}"
            )
        spec, whitening = document.classifier, document.embedding.whitening
        return cls(
            backbone=backbone,
            pool=GeM(document.pooling.p, learnable=learnable_p),
            mean=document.preprocessing.mean,
            std=document.preprocessing.std,
            classifier=nn.Linear(num_dims, len(spec.class_names)) if spec else None,
            whiten=(
                Whitening(torch.zeros(num_dims), torch.zeros(whitening.out, num_dims))
                if whitening
                else None
            ),
        )

    def forward(self, pixels: Tensor) -> Output:
        """RGB pixels [N, 3, H, W] in 0..255, uint8 or floating -> Output."""
        pooled = self.pooled(pixels)
        return Output(self.embed(pooled), self.classify(pooled))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255 -> zero mean and unit deviation, in the trunk's precision."""
        return (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def pooled(self, pixels: Tensor) -> Tensor:
        """RGB pixels [N, 3, H, W] in 0..255 -> e [N, C], at least float32, not normalised."""
        features: Tensor = self.backbone(self.normalise(pixels))
        pooled: Tensor = self.pool(features)
        return pooled

    def embed(self, pooled: Tensor) -> Tensor:
        """Pooled vectors e [N, C] -> unit embeddings [N, D]."""
        unit = F.normalize(pooled, dim=1)
        return self.whiten(unit) if self.whiten is not None else unit

    def classify(self, pooled: Tensor) -> Tensor | None:
        """Pooled vectors e [N, C] -> logits [N, K] in float32, None without a classifier."""
        if self.classifier is None:
            return None
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.classifier(pooled)
            return logits
