"""Torchvision's trunks: the part of a classifier that ends in its last feature map.

N batch, C channels, h w positions, L tokens. Keys of a state dict stay torchvision's own.
"""

import difflib
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from multigrain.backbone_base import Backbone, BackboneError, Tokens

_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_REGNET = ("stem", "trunk_output")
_SHUFFLENET = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
_FEATURES = ("features",)
_VIT = ("conv_proj", "encoder")

# Families and the children that make their last map, in the order they are applied. The map
# is (nearly) non-negative, as GeM expects, but for the last three, whose maps have both signs.
_FAMILIES = {
    "resnet": _RESNET,
    "resnext": _RESNET,
    "wide_resnet": _RESNET,
    "regnet": _REGNET,
    "shufflenet": _SHUFFLENET,
    "mobilenet": _FEATURES,
    "efficientnet": _FEATURES,
    "squeezenet": _FEATURES,
    "convnext": _FEATURES,
    "swin": ("features", "norm", "permute"),
    "vit": _VIT,
}
# Where the stage lies whose stride may be taken away.
_LAST_STAGES = {_RESNET: "layer4", _REGNET: "trunk_output.block4"}


class ChainBackbone(Backbone):
    """Children of a torchvision model, one after the other."""

    def __init__(self, name: str, children: dict[str, nn.Module]) -> None:
        super().__init__()
        for child, module in children.items():
            self.add_module(child, module)
        self.name = name
        self.num_channels = _count_channels(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] -> [N, C, h, w]."""
        features = pixels
        for child in self.children():
            features = child(features)
        return features


class VitBackbone(Backbone):
    """Torchvision's vision transformer for photos of any size.

    Position embeddings are interpolated to the photo's grid of patches (Dosovitskiy et al.
    2021, 3.2), and stay as they are on the grid they were trained for.
    """

    def __init__(self, name: str, model: Any, *, tokens: Tokens) -> None:
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.encoder = model.encoder
        self.name = name
        self.num_channels = model.hidden_dim
        self._tokens = tokens
        self._side = model.image_size // model.patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] -> patch tokens [N, C, L, 1] or the class token [N, C, 1, 1]."""
        patches = self.conv_proj(pixels)
        positions = self._positions(patches.shape[2], patches.shape[3])
        rows = patches.flatten(2).transpose(1, 2)
        first = self.class_token.expand(rows.shape[0], -1, -1)
        rows = torch.cat([first, rows], dim=1) + positions
        rows = self.encoder.ln(self.encoder.layers(self.encoder.dropout(rows)))
        kept = rows[:, :1] if self._tokens == "class" else rows[:, 1:]
        features: Tensor = kept.transpose(1, 2).unsqueeze(3)
        return features

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embeddings [1, 1 + h w, C] of the class token and of a grid of patches."""
        trained: Tensor = self.encoder.pos_embedding
        grid = trained[:, 1:].transpose(1, 2).reshape(1, -1, self._side, self._side)
        # Always, even onto the same grid (which changes no bit): a trace must not keep a branch.
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat([trained[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def backbone_names() -> tuple[str, ...]:
    """Names of all trunks, as torchvision spells them."""
    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(name for name in names if _children_of(name) is not None)


def build_torchvision(name: str, *, last_stride: Literal[1, 2], tokens: Tokens) -> Backbone:
    """A trunk with random weights; raises BackboneError with the nearest name."""
    children = _children_of(name)
    if children is None or name not in backbone_names():
        near = difflib.get_close_matches(name, backbone_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(backbone_names())}"
        raise BackboneError(f"no trunk named {name!r}: {hint} (timm's are spelled timm:NAME)")
    if tokens == "class" and children != _VIT:
        raise BackboneError(f"{name} has no class token: give tokens patches, or a ViT")
    model = torchvision.models.get_model(name, weights=None)
    if last_stride == 1:
        _unstride(name, model, children)
    if children == _VIT:
        return VitBackbone(name, model, tokens=tokens)
    return ChainBackbone(name, {child: getattr(model, child) for child in children})


def _children_of(name: str) -> tuple[str, ...] | None:
    family = next((family for family in _FAMILIES if name.startswith(family)), None)
    return _FAMILIES[family] if family is not None else None


def _unstride(name: str, model: nn.Module, children: tuple[str, ...]) -> None:
    """Take the stride of the last stage away; weights keep their shapes (Luo et al. 2019)."""
    stage = _LAST_STAGES.get(children)
    if stage is None:
        raise BackboneError(
            f"last_stride 1 is not possible with {name}: give 2, or a resnet, resnext, "
            f"wide_resnet or regnet"
        )
    for module in model.get_submodule(stage).modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)


def _count_channels(trunk: nn.Module) -> int:
    """Channels of the last map, read off one small forward pass."""
    was_training = trunk.training
    with torch.no_grad():
        num_channels = trunk.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    trunk.train(was_training)
    return int(num_channels)
