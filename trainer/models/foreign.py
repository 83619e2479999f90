"""Other projects' files of weights: what is found in them, under our trunk's library names.

K classes, C channels.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from multigrain.backbone import Backbone
from trainer.models.weights_sources import WeightsError

# Where other programs put the weights among epochs and optimisers.
_WRAPPERS = ("state_dict", "model_state", "model", "model_ema", "net", "weights")
_EXPONENTS = ("pool.p", "pool_layer.p", "pooling.p")
_CLASSIFIERS = ("fc", "classifier", "head", "head.fc", "classifier.1", "last_linear")
_PCA = ("pca_P", "pca_m")
_COUNTER = "num_batches_tracked"
_OF_A_RESNET = "layer1.0.conv1.weight"
_RGB = 3
_MATRIX = 2

# pycls' names of a ResNet (Radosavovic et al.; pymetric has them too) and torchvision's.
_CONVOLUTIONS = {"a": "1", "b": "2", "c": "3"}
_PYCLS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"\bstem\.conv\.", lambda _: "conv1."),
    (r"\bstem\.bn\.", lambda _: "bn1."),
    (r"\bs(\d)\.b(\d+)\.proj\.", lambda m: f"{_block(m)}.downsample.0."),
    (r"\bs(\d)\.b(\d+)\.bn\.", lambda m: f"{_block(m)}.downsample.1."),
    (r"\bs(\d)\.b(\d+)\.f\.([abc])\.", lambda m: f"{_block(m)}.conv{_CONVOLUTIONS[m[3]]}."),
    (r"\bs(\d)\.b(\d+)\.f\.([abc])_bn\.", lambda m: f"{_block(m)}.bn{_CONVOLUTIONS[m[3]]}."),
)


class Foreign(NamedTuple):
    """A trunk's tensors by name, and what else was understood; `left` are names that were not."""

    trunk: dict[str, Tensor]
    classifier: dict[str, Tensor]  # weight [K, C] and bias [K], or nothing
    p: float | None
    has_whitening: bool
    left: list[str]


def tensors_in(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """The named tensors of a file's object, however it is wrapped; raises WeightsError."""
    for name in _WRAPPERS:
        inner = loaded.get(name)
        if isinstance(inner, Mapping) and any(isinstance(t, Tensor) for t in inner.values()):
            return tensors_in(inner)
    tensors = {name: t for name, t in loaded.items() if isinstance(t, Tensor)}
    if not tensors:
        raise WeightsError(
            f"no named tensors in the file, which holds {', '.join(map(str, list(loaded)[:5]))}: "
            f"save the model's state dict alone"
        )
    return tensors


def understand(tensors: Mapping[str, Tensor], backbone: Backbone) -> Foreign:
    """Find the trunk under any prefix, then exponent, classifier and whitening beside it.

    Names of pycls' ResNets are translated. Whether the trunk is whole is for the caller to check.
    """
    own = backbone.library_state()
    is_resnet = _OF_A_RESNET in own
    named = {(_translated(n) if is_resnet else n): tensor for n, tensor in tensors.items()}
    prefix = _prefix_of(named, own)
    trunk = {name: named.pop(prefix + name) for name in own if prefix + name in named}
    classifier = _classifier_in(named, backbone.num_channels)
    p = next((named.pop(name) for name in list(named) if name.endswith(_EXPONENTS)), None)
    has_whitening = any(name.endswith(_PCA) for name in named)
    if has_whitening:  # folded into the classifier, which no longer fits e
        classifier = {}
    return Foreign(
        trunk,
        classifier,
        None if p is None else float(p.reshape(-1)[0]),
        has_whitening,
        sorted(name for name in named if not name.endswith(_PCA)),
    )


def fill(backbone: Backbone, trunk: Mapping[str, Tensor], *, bgr: bool) -> None:
    """Copy the trunk's tensors in; raises WeightsError unless it is whole.

    With `bgr` the first convolution's input channels are turned from BGR to RGB.
    """
    own = backbone.library_state()
    wrong = [
        name
        for name, tensor in own.items()
        if not name.endswith(_COUNTER) and (name not in trunk or trunk[name].shape != tensor.shape)
    ]
    if wrong:
        raise WeightsError(
            f"{len(own) - len(wrong)} of {len(own)} tensors of {backbone.name} are in the file; "
            f"absent or of another shape: {', '.join(wrong[:5])}: name the trunk it was made for"
        )
    # In order, the first tensor over three channels is the first convolution's.
    first = next(name for name, tensor in own.items() if tensor.shape[1:2] == (_RGB,))
    turned = {first: trunk[first].flip(1)} if bgr else {}
    backbone.load_library_state({**trunk, **turned})


def class_names_for(classifier: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """Read the names of a classifier's outputs; raises WeightsError for another number of them."""
    if not classifier:
        raise WeightsError("--class-names: the file has no linear classifier of the trunk's width")
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"--class-names {file} cannot be read: {error}") from error
    num_classes = len(classifier["weight"])
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise WeightsError(
            f"--class-names holds {len(set(names))} different names, the classifier has "
            f"{num_classes} classes"
        )
    return names


def _block(match: re.Match[str]) -> str:
    return f"layer{match[1]}.{int(match[2]) - 1}"


def _translated(name: str) -> str:
    for pattern, new in _PYCLS:
        name = re.sub(pattern, new, name)
    return name


def _prefix_of(named: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The prefix under which most of the trunk's names are found; the shortest of equals."""
    first = next(iter(own))
    prefixes = {name.removesuffix(first) for name in named if name.endswith(first)} or {""}
    return min(prefixes, key=lambda prefix: (-sum(prefix + name in named for name in own), prefix))


def _classifier_in(named: dict[str, Tensor], num_channels: int) -> dict[str, Tensor]:
    """Take a linear classifier of the trunk's channels out of what is left."""
    for name in sorted(named):
        stem = name.removesuffix(".weight")
        fits = named[name].ndim == _MATRIX and named[name].shape[1] == num_channels
        if fits and stem != name and stem.endswith(_CLASSIFIERS) and f"{stem}.bias" in named:
            return {"weight": named.pop(name), "bias": named.pop(f"{stem}.bias")}
    return {}
