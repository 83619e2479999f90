"""Flags of the training program: the loss."""

from typing import Literal

from pydantic import Field

from multigrain.config import Config

Negatives = Literal["uniform", "distance", "hard", "reference"]


class LossSettings(Config):
    """What training minimises: `lambda * classes + (1 - lambda) * pairs`."""

    lambda_: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="lambda: weight of the classes beside the instances; "
        "unset: 0.5 with classes, 0 without",
    )
    pair_losses: tuple[str, ...] = Field(
        default=("margin",),
        description="pair losses, NAME or NAME:WEIGHT: margin, or one of "
        "pytorch-metric-learning's (triplet, circle, multi-similarity, proxy-anchor); repeatable",
    )
    positives: Literal["instance", "class"] = Field(
        default="instance", description="what views of a pair share: the photo, or its class"
    )
    alpha: float = Field(default=0.2, ge=0, description="margin of the margin loss")
    beta: float = Field(default=1.2, gt=0, description="its distance boundary at the start")
    margin_divisor: Literal["both", "either"] = Field(
        default="both",
        description="count of the non-zero terms: both kinds, or once for both (parity)",
    )
    negatives: Negatives = Field(default="uniform", description="how negatives are drawn")
    effective_dim: int = Field(
        default=128,
        ge=0,
        description="dimension in the distance weights' density; 0: the embedding's own",
    )
