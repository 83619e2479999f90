"""The model: trunk, pooling, reduction, neck; classifier beside the embedding, whitening behind.

N batch, C channels, E dimensions of e, D embedding, K classes.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.backbone import Backbone, build_backbone
from multigrain.classifier import CosineClassifier, LinearClassifier, build_classifier
from multigrain.document import Document
from multigrain.errors import MultiGrainError
from multigrain.pooling import Pooling, build_pooling
from multigrain.whitening import Whitening


class ModelError(MultiGrainError):
    """A model whose parts do not fit together."""


class Output(NamedTuple):
    """Unit embeddings [N, D] in float32, and logits [N, K] or None without a classifier."""

    embedding: Tensor
    logits: Tensor | None


class Sides(NamedTuple):
    """The two uses of e [N, E]: `feature` becomes the embedding, `head_input` is classified."""

    feature: Tensor
    head_input: Tensor


class MultiGrain(nn.Module):
    """`trunk -> pooling -> reduction -> e -> neck`; the embedding is e / |e|, whitened.

    MultiGrain, section 3, where there is neither reduction nor neck and the classifier works
    on e. With a neck (a batch norm; Luo et al. 2019, BNNeck) the classifier works behind it,
    and the embedding is taken before or after it. Everything behind the trunk is computed in
    float32. Normalisation by mean and standard deviation is the first operation, so pixels
    enter as they are decoded: RGB in 0..255.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        pool: Pooling,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        reduce: nn.Linear | None = None,
        neck: nn.BatchNorm1d | None = None,
        embeds_after_neck: bool = True,
        classifier: LinearClassifier | CosineClassifier | nn.Linear | None = None,
        whiten: Whitening | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.reduce = reduce
        self.neck = neck
        self.embeds_after_neck = embeds_after_neck
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
        spec, embedding = document.backbone, document.embedding
        backbone = build_backbone(
            spec.name, library=spec.library, last_stride=spec.last_stride, tokens=spec.tokens
        )
        if backbone.num_channels != spec.feature_dim:
            raise ModelError(
                f"{backbone.name} gives {backbone.num_channels} channels, "
                f"the document says {spec.feature_dim}"
            )
        num_dims = document.reduced_dim
        return cls(
            backbone=backbone,
            pool=build_pooling(
                document.pooling.kind, p=document.pooling.p, learnable_p=learnable_p
            ),
            mean=document.preprocessing.mean,
            std=document.preprocessing.std,
            reduce=nn.Linear(spec.feature_dim, num_dims) if embedding.reduction else None,
            neck=_neck(num_dims) if embedding.neck else None,
            embeds_after_neck=embedding.neck_features == "after",
            classifier=_classifier(document),
            whiten=_whitening(document),
        )

    def forward(self, pixels: Tensor) -> Output:
        """RGB pixels [N, 3, H, W] in 0..255, uint8 or floating -> Output."""
        sides = self.sides(self.pooled(pixels))
        logits = self.classifier(sides.head_input) if self.classifier is not None else None
        return Output(self.unit(sides.feature), logits)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255 -> zero mean and unit deviation, in the trunk's precision."""
        return (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def pooled(self, pixels: Tensor) -> Tensor:
        """RGB pixels [N, 3, H, W] in 0..255 -> e [N, E], at least float32, not normalised."""
        features: Tensor = self.backbone(self.normalise(pixels))
        return self.reduced(self.pool(features))

    def reduced(self, pooled: Tensor) -> Tensor:
        """Pooled vectors [N, C] -> e [N, E]."""
        if self.reduce is None:
            return pooled
        with torch.autocast(pooled.device.type, enabled=False):
            reduced: Tensor = self.reduce(pooled)
            return reduced

    def sides(self, e: Tensor) -> Sides:
        """Both sides of the neck, which runs once: in training its statistics move with it."""
        if self.neck is None:
            return Sides(e, e)
        with torch.autocast(e.device.type, enabled=False):
            behind: Tensor = self.neck(e)
        return Sides(behind if self.embeds_after_neck else e, behind)

    def head_input(self, e: Tensor) -> Tensor:
        """What the classifier sees of e [N, E]: [N, E], behind the neck."""
        return self.sides(e).head_input

    def unit(self, feature: Tensor) -> Tensor:
        """The side of e that is the embedding's [N, E] -> unit embeddings [N, D]."""
        unit = F.normalize(feature, dim=1)
        return self.whiten(unit) if self.whiten is not None else unit

    def embed(self, e: Tensor) -> Tensor:
        """Unit embeddings [N, D] of e [N, E]."""
        return self.unit(self.sides(e).feature)

    def classify(self, e: Tensor) -> Tensor | None:
        """Logits [N, K] of e [N, E], in float32; None without a classifier."""
        if self.classifier is None:
            return None
        with torch.autocast(e.device.type, enabled=False):
            logits: Tensor = self.classifier(self.head_input(e))
            return logits


def _neck(num_dims: int) -> nn.BatchNorm1d:
    """A batch norm that scales and does not shift: classes stay around the origin (BNNeck)."""
    neck = nn.BatchNorm1d(num_dims)
    neck.bias.requires_grad_(False)
    return neck


def _classifier(document: Document) -> LinearClassifier | CosineClassifier | None:
    spec = document.classifier
    if spec is None:
        return None
    return build_classifier(
        spec.kind,
        num_dims=document.reduced_dim,
        num_classes=len(spec.class_names),
        scale=spec.scale,
    )


def _whitening(document: Document) -> Whitening | None:
    spec = document.embedding.whitening
    return Whitening(torch.zeros(spec.in_), torch.zeros(spec.out, spec.in_)) if spec else None
