"""Flags of the training program: trunk, pooling, embedding, head."""

from typing import Literal

from pydantic import Field

from multigrain.config import Config
from trainer.duration import DurationText

Pooling = Literal["gem", "avg", "max", "avg+max"]
Head = Literal["linear", "arcface", "cosface", "curricularface", "circle"]


class ModelSettings(Config):
    """What turns pixels into an embedding, and the classifier beside it."""

    backbone: str = Field(default="resnet50", description="trunk: torchvision's name, or timm:NAME")
    weights: str = Field(
        default="none",
        description="initial weights: none, DEFAULT, or a .pth/.safetensors file",
    )
    weights_allow: tuple[str, ...] = Field(
        default=(),
        description="tensor names (patterns, *) that may be missing or left over; repeatable",
    )
    weights_licence: str = Field(default="unknown", description="licence of the weights, recorded")
    last_stride: Literal[1, 2] = Field(
        default=2, description="stride of the trunk's last stage: 1 doubles the last map's sides"
    )
    tokens: Literal["patches", "class"] = Field(
        default="patches", description="of a ViT: what is pooled, patch tokens or the class token"
    )

    pooling: Pooling = Field(default="gem", description="how the last map becomes a vector")
    p: float = Field(default=3.0, gt=0, description="exponent of the GeM pooling")
    learn_p: bool = Field(default=False, description="learn the exponent")
    reduction: int | None = Field(
        default=None, ge=1, description="dimensions of a linear layer behind the pooling"
    )
    neck: Literal["none", "bn"] = Field(
        default="none", description="batch norm between the embedding and the head"
    )
    neck_features: Literal["before", "after"] = Field(
        default="after", description="which side of the neck is the embedding"
    )

    head: Head = Field(default="linear", description="classifier")
    head_scale: float | None = Field(
        default=None, gt=0, description="scale of a cosine head; unset: the head's own"
    )
    head_margin: float | None = Field(
        default=None, ge=0, description="margin of a cosine head; unset: the head's own"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target spread over all classes"
    )

    freeze: tuple[str, ...] = Field(
        default=(), description="parameter names (patterns, *) to freeze; repeatable"
    )
    freeze_until: DurationText = Field(
        default="100%", description="when frozen parameters begin to learn"
    )
    sync_bn: bool = Field(
        default=False, description="batch-norm statistics over all processes (GPU only)"
    )
