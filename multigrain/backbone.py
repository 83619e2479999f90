"""Trunks by name: the part of a torchvision classifier that ends in its last feature map."""

import difflib
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from multigrain.errors import MultiGrainError

_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_REGNET = ("stem", "trunk_output")
_SHUFFLENET = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
_FEATURES = ("features",)

# Families whose last map is (nearly) non-negative, as GeM expects, and the children that make
# it, in the order they are applied. Keys of a state dict stay torchvision's own.
_FAMILIES = {
    "resnet": _RESNET,
    "resnext": _RESNET,
    "wide_resnet": _RESNET,
    "regnet": _REGNET,
    "shufflenet": _SHUFFLENET,
    "mobilenet": _FEATURES,
    "efficientnet": _FEATURES,
    "squeezenet": _FEATURES,
}


class BackboneError(MultiGrainError):
    """A trunk that does not exist, or weights that do not fit it."""


class WeightsReport(NamedTuple):
    """What of a state dict did not fit: names the trunk lacks values for, names left over."""

    missing: list[str]
    unexpected: list[str]


class Backbone(nn.Sequential):
    """Pixels [N, 3, H, W], normalised, to a feature map [N, C, h, w]; C is `num_channels`."""

    def __init__(self, name: str, children: "OrderedDict[str, nn.Module]") -> None:
        super().__init__(children)
        self.name = name
        self.num_channels = _count_channels(self)

    def load_torchvision_state(self, state: Mapping[str, Tensor]) -> WeightsReport:
        """Copy in the weights that fit by name and say which did not.

        Raises BackboneError when a tensor of the same name has another shape. Whether a
        missing or left-over name is a fault is for the caller to decide: a classifier's
        weights are left over by design.
        """
        own = self.state_dict()
        for name in own.keys() & state.keys():
            if own[name].shape != state[name].shape:
                raise BackboneError(
                    f"{self.name}: {name} has shape {tuple(state[name].shape)} in the weights, "
                    f"{tuple(own[name].shape)} in the trunk: these are weights of another model"
                )
        report = self.load_state_dict(state, strict=False)
        return WeightsReport(list(report.missing_keys), list(report.unexpected_keys))


def backbone_names() -> tuple[str, ...]:
    """Names of all trunks, as torchvision spells them."""
    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(name for name in names if _children_of(name) is not None)


def build_backbone(name: str) -> Backbone:
    """A trunk with random weights; raises BackboneError with the nearest name."""
    children = _children_of(name)
    if children is None or name not in backbone_names():
        near = difflib.get_close_matches(name, backbone_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(backbone_names())}"
        raise BackboneError(f"no trunk named {name!r}: {hint}")
    model = torchvision.models.get_model(name, weights=None)
    return Backbone(name, OrderedDict((child, getattr(model, child)) for child in children))


def _children_of(name: str) -> tuple[str, ...] | None:
    family = next((family for family in _FAMILIES if name.startswith(family)), None)
    return _FAMILIES[family] if family is not None else None


def _count_channels(trunk: nn.Sequential) -> int:
    """Channels of the last map, read off one small forward pass."""
    was_training = trunk.training
    with torch.no_grad():
        num_channels = trunk.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    trunk.train(was_training)
    return int(num_channels)
