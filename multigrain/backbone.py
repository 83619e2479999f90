"""Trunks by name: what turns normalised pixels into the last feature map.

A plain name is torchvision's, `timm:NAME` one of the timm library (an extra).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import nn

from multigrain.backbone_base import TIMM, Backbone, BackboneError, Tokens, WeightsReport
from multigrain.backbone_timm import build_timm
from multigrain.backbone_torchvision import build_torchvision

__all__ = [
    "TIMM",
    "Backbone",
    "BackboneError",
    "Tokens",
    "WeightsReport",
    "build_backbone",
    "channels_of",
    "split_name",
    "without_memory",
]

Module = TypeVar("Module", bound=nn.Module)
Library = Literal["torchvision", "timm"]


def split_name(text: str) -> tuple[Library, str]:
    """`timm:NAME` -> (timm, NAME); any other name is torchvision's."""
    return ("timm", text.removeprefix(TIMM)) if text.startswith(TIMM) else ("torchvision", text)


def build_backbone(
    name: str,
    *,
    library: Library = "torchvision",
    last_stride: Literal[1, 2] = 2,
    tokens: Tokens = "patches",
) -> Backbone:
    """A trunk with random weights; `timm:NAME` is understood whatever `library` says.

    `last_stride` 1 doubles the sides of the last map, `tokens` decides what of a ViT is
    pooled. Raises BackboneError with the nearest name for a trunk that does not exist, and
    for one that cannot be built like that.
    """
    if name.startswith(TIMM):
        library, name = split_name(name)
    if library == "timm":
        return build_timm(name, last_stride=last_stride, tokens=tokens)
    return build_torchvision(name, last_stride=last_stride, tokens=tokens)


def channels_of(name: str, *, last_stride: Literal[1, 2] = 2, tokens: Tokens = "patches") -> int:
    """Channels of a trunk's last map, without memory for its weights where that is possible."""
    build = partial(build_backbone, name, last_stride=last_stride, tokens=tokens)
    return without_memory(build).num_channels


def without_memory(build: Callable[[], Module]) -> Module:
    """Build a module for its shapes: on torch's meta device, where weights take no memory.

    A trunk that computes with tensors while it is built (RegNet its widths) cannot be built
    there, and is built in memory.
    """
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:
        return build()
