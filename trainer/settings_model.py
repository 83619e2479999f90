"""Flags of the training program: trunk, pooling, embedding, head."""

from typing import Literal, Self

from pydantic import Field, model_validator

from multigrain.config import Config
from trainer.duration import DurationText

Pooling = Literal["gem", "avg", "max", "avg+max"]
Head = Literal["linear", "arcface", "cosface", "curricularface", "circle"]


class ModelSettings(Config):
    """What turns pixels into an embedding, and the classifier beside it."""

    backbone: str = Field(
        default="resnet50", description="trunk: torchvision's name, or timm:NAME (extra timm)"
    )
    weights: str = Field(
        default="none",
        description="initial weights: none, DEFAULT, a name or tag of the trunk's library "
        "(IMAGENET1K_V2, a1_in1k), a .pth or .safetensors file, or a run's folder",
    )
    weights_allow: tuple[str, ...] = Field(
        default=(),
        description="trunk tensors (patterns, *) that may be missing, left over or of another "
        "shape; repeatable",
    )
    weights_licence: str = Field(default="unknown", description="licence of the weights, recorded")
    last_stride: Literal[1, 2] = Field(
        default=2, description="stride of the trunk's last stage: 1 doubles the last map's sides"
    )
    tokens: Literal["patches", "class"] = Field(
        default="patches",
        description="of a ViT: what is pooled, patch tokens or the class token (--pooling avg)",
    )

    pooling: Pooling = Field(
        default="gem",
        description="how the last map becomes a vector; gem counts negative features as nothing: "
        "avg suits trunks whose map has both signs (ViT, Swin, ConvNeXt)",
    )
    p: float = Field(default=3.0, gt=0, description="exponent of the GeM pooling")
    learn_p: bool = Field(default=False, description="learn the exponent (never below 0.1)")
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

    @model_validator(mode="after")
    def _parts_of_the_model_are_there(self) -> Self:
        """Refuse an option whose part is not there: it would do nothing."""
        if self.weights_allow and self.weights == "none":
            raise ValueError("--weights-allow is for --weights, which is none")
        if self.learn_p and self.pooling != "gem":
            raise ValueError(f"--learn-p is for --pooling gem, not {self.pooling}")
        if self.tokens == "class" and self.pooling != "avg":
            raise ValueError("--tokens class is one vector already: give --pooling avg")
        if self.neck == "none" and self.neck_features == "before":
            raise ValueError("--neck-features before needs --neck bn")
        if self.head == "linear" and (self.head_scale or self.head_margin is not None):
            raise ValueError(
                "--head-scale and --head-margin are for cosine heads: give --head arcface, "
                "cosface, curricularface or circle"
            )
        return self
