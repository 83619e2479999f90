"""Trunks of the timm library, an optional extra.

N batch, C channels, h w positions, L tokens.
"""

import copy
import difflib
from typing import Any, Literal

import torch
from torch import Tensor

from multigrain.backbone_base import TIMM, Backbone, BackboneError, Tokens

# How timm's families are told to take photos of any size; the first that a model knows is used.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
_STRIDE_OF_LAST_STRIDE_1 = 16
_TOKENS_NDIM = 3

Numbers = tuple[float, float, float]


class TimmBackbone(Backbone):
    """A timm model without its head."""

    prefix = "body."

    def __init__(self, name: str, model: Any, *, tokens: Tokens) -> None:
        super().__init__()
        self.body = model
        self.name = TIMM + name
        shape = _shape_of_features(model)
        self._gives_tokens = len(shape) == _TOKENS_NDIM
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self.num_channels = shape[-1 if self._gives_tokens or self._channels_last else 1]
        self._num_prefix_tokens = int(getattr(model, "num_prefix_tokens", 0))
        self._wants_class_token = tokens == "class"

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] -> a map [N, C, h, w], tokens as [N, C, L, 1]."""
        features: Tensor = self.body.forward_features(pixels)
        if self._gives_tokens:
            kept = features[:, :1] if self._wants_class_token else self._patches(features)
            return kept.transpose(1, 2).unsqueeze(3)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def _patches(self, tokens: Tensor) -> Tensor:
        return tokens[:, self._num_prefix_tokens :]


def build_timm(name: str, *, last_stride: Literal[1, 2], tokens: Tokens) -> TimmBackbone:
    """A timm trunk with random weights; nothing is downloaded.

    Raises BackboneError when timm is not installed, with the nearest name when it has no such
    model, and for a stride or a class token that the model does not have.
    """
    check_timm_name(name)
    model = create_timm(name, last_stride=last_stride)
    if tokens == "class" and getattr(model, "cls_token", None) is None:
        raise BackboneError(f"timm:{name} has no class token: give tokens patches")
    return TimmBackbone(name, model, tokens=tokens)


def check_timm_name(name: str) -> None:
    """Raise BackboneError when timm is absent or has no model of this name (a tag may follow)."""
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = (
            f"did you mean timm:{near[0]}?" if near else "python -c 'import timm; ...' lists them"
        )
        raise BackboneError(f"timm {timm.__version__} has no model named {name!r}: {hint}")


def timm_pixel_statistics(name: str) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation, RGB in 0..1, that the model's weights were trained with."""
    check_timm_name(name)
    settings = import_timm().get_pretrained_cfg(name)
    return tuple(settings.mean), tuple(settings.std)


def import_timm() -> Any:
    """The timm library; raises BackboneError when it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise BackboneError(
            "trunks timm:NAME need timm: pip install 'multigrain-retrieval[timm]'"
        ) from error
    return timm


def _shape_of_features(model: Any) -> torch.Size:
    """Shape of what the model gives for a photo of its own size, computed on no data."""
    twin = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad():
        shape: torch.Size = twin.forward_features(
            torch.empty(1, *twin.pretrained_cfg["input_size"], device="meta")
        ).shape
    return shape


def create_timm(name: str, *, last_stride: Literal[1, 2] = 2, pretrained: bool = False) -> Any:
    """A timm model without its head, for photos of any size where its family allows it.

    With `pretrained` its weights are downloaded or come from timm's cache. Raises
    BackboneError when the model cannot be built so, and whatever timm's client raises.
    """
    timm = import_timm()
    stride = {"output_stride": _STRIDE_OF_LAST_STRIDE_1} if last_stride == 1 else {}
    refusals: list[str] = []
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(
                name, pretrained=pretrained, num_classes=0, **any_size, **stride
            )
        except (TypeError, NotImplementedError, AssertionError) as error:  # an unknown argument
            refusals.append(str(error))
    asked = f" with last_stride 1 (timm: {refusals[-1]}): give last_stride 2" if stride else ""
    raise BackboneError(f"timm:{name} cannot be built{asked or ': ' + refusals[-1]}")
