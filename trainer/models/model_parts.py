"""The parts of a document that the programs which make models share."""

import copy
from importlib.metadata import version
from typing import Literal

import torch

from multigrain.backbone import Backbone, BackboneError, Tokens, channels_of, split_name
from multigrain.backbone_timm import timm_pixel_statistics
from multigrain.document import BackboneSpec, PoolingKind, PoolingSpec, software_versions
from multigrain.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def backbone_spec(
    backbone: str, *, last_stride: Literal[1, 2] = 2, tokens: Tokens = "patches"
) -> BackboneSpec:
    """The trunk of a name; raises BackboneError for one that cannot be built."""
    library, name = split_name(backbone)
    return BackboneSpec(
        library=library,
        name=name,
        feature_dim=channels_of(backbone, last_stride=last_stride, tokens=tokens),
        last_stride=last_stride,
        tokens=tokens,
    )


def pooling_spec(kind: PoolingKind, p: float) -> PoolingSpec:
    """The pooling of a name; only GeM has the exponent."""
    return PoolingSpec(kind=kind, p=p if kind == "gem" else None)


def preprocessing_of(backbone: str, *, size: int, rule: Literal["crop", "whole"]) -> Preprocessing:
    """The preprocessing, with the mean and deviation that the trunk's library trains with."""
    library, name = split_name(backbone)
    mean, std = timm_pixel_statistics(name) if library == "timm" else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(size=size, rule=rule, mean=mean, std=std)


def software_of(backbone: str) -> dict[str, str]:
    """Versions of what shapes the embedding, timm's too where the trunk is timm's."""
    library, _ = split_name(backbone)
    return software_versions() | ({"timm": version("timm")} if library == "timm" else {})


def check_shapes(backbone: Backbone, shapes: set[tuple[int, int]]) -> None:
    """Raise BackboneError unless the trunk takes photos of every (height, width).

    Tried on no data, so it costs next to nothing; a trunk of one size is found out here and
    not in the first step.
    """
    twin = copy.deepcopy(backbone).to("meta").eval()
    for height, width in sorted(shapes):
        try:
            with torch.no_grad():
                twin(torch.empty(1, 3, height, width, device="meta"))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise BackboneError(
                f"{backbone.name} does not take photos of {height} x {width} pixels ({error}): "
                f"give another --size, or --rule crop, which has one square shape"
            ) from error
