"""Other projects' files of weights: what is found in them, under our trunk's library names.

K classes, C channels.
"""

import math
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
_CLASSIFIERS = ("fc", "classifier", "head", "classifier.1", "classifier.2", "last_linear")
# Where a library's model does something between the pooled features and its classifier.
_BETWEEN = re.compile(
    r"(^|\.)(heads?|classifier|fc_norm|pre_logits|attn_pool|neck|bnneck|bottleneck)\."
)
_LEFT_BETWEEN = re.compile(r"(^|\.)norm\.")
_CLASS_TOKENS = ("class_token", "cls_token")
# Copies of a trunk that follow another one.
_FOLLOWERS = ("encoder_k", "momentum")
_PCA = ("pca_P", "pca_m")
_COUNTER = "num_batches_tracked"
_OF_A_RESNET = "layer1.0.conv1.weight"
_RGB = 3
_MATRIX = 2
_MOST_NAMED = 3

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
    between: list[str]  # what stands between the pooled features and that classifier
    p: Tensor | None
    has_whitening: bool
    left: list[str]


def tensors_in(loaded: Mapping[str, Any], *, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The named tensors of a file's object, however it is wrapped; raises WeightsError.

    Which of several sets of weights is taken is said.
    """
    sets = [name for name, inner in loaded.items() if _holds_tensors(inner)]
    for name in _WRAPPERS:
        if name in sets:
            others = [str(other) for other in sets if other != name]
            if others:
                say(f"the weights are those of {name!r}; beside them lie {', '.join(others)}")
            return tensors_in(loaded[name], say=say)
    tensors = {name: t for name, t in loaded.items() if isinstance(t, Tensor)}
    if not tensors:
        raise WeightsError(
            f"no named tensors in the file, which holds {', '.join(map(str, list(loaded)[:5]))}: "
            f"save the model's state dict alone"
        )
    return tensors


def understand(
    tensors: Mapping[str, Tensor], backbone: Backbone, *, say: Callable[[str], None]
) -> Foreign:
    """Find the trunk under any prefix, then exponent, classifier and whitening beside it.

    Names of pycls' ResNets are translated. Whether the trunk is whole is for the caller to check.
    Which of several equal trunks is taken is said.
    """
    own = backbone.library_state()
    is_resnet = _OF_A_RESNET in own
    named = {(_translated(n) if is_resnet else n): tensor for n, tensor in tensors.items()}
    prefix, *others = _prefixes_of(named, own)
    if others:
        say(f"the trunk is that under {prefix!r}; beside it lie {', '.join(map(repr, others))}")
    trunk = {name: named.pop(prefix + name) for name in own if prefix + name in named}
    classifier = _classifier_in(named, backbone.num_channels)
    p = next((named.pop(name) for name in list(named) if name.endswith(_EXPONENTS)), None)
    has_whitening = any(name.endswith(_PCA) for name in named)
    if has_whitening:  # folded into the classifier, which no longer fits e
        classifier = {}
    return Foreign(
        trunk,
        classifier,
        _between(named, own) if classifier else [],
        p,
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


def exponent_of(p: Tensor) -> float:
    """Return the file's exponent; raises WeightsError for one that GeM here cannot have."""
    if p.numel() != 1:
        raise WeightsError(
            f"the file has {p.numel()} exponents, one for each channel, and GeM here has one: "
            f"give it as --p"
        )
    value = float(p)
    if not math.isfinite(value) or value <= 0:
        raise WeightsError(f"the file's exponent is {value:g}: give one above 0 as --p")
    return value


def class_names_for(found: Foreign, file: Path) -> tuple[str, ...]:
    """Read the names of a classifier's outputs, each once.

    Raises WeightsError for another number of them, and for a classifier that does not stand
    directly behind the pooled features: its scores would be others.
    """
    classifier = found.classifier
    if not classifier:
        raise WeightsError("--class-names: the file has no linear classifier of the trunk's width")
    if found.between:
        raise WeightsError(
            f"--class-names: the classifier does not work on the pooled features, "
            f"{', '.join(found.between[:_MOST_NAMED])} stands between: convert without it"
        )
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"--class-names {file} cannot be read: {error}") from error
    num_classes = len(classifier["weight"])
    if len(names) != num_classes:
        raise WeightsError(
            f"--class-names holds {len(names)} names, the classifier has {num_classes} classes"
        )
    lines: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if name in lines:
            raise WeightsError(
                f"--class-names {file}: {name!r} stands on lines {lines[name]} and {line}: give "
                f"each class a name of its own"
            )
        lines[name] = line
    return names


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(t, Tensor) for t in value.values())


def _block(match: re.Match[str]) -> str:
    return f"layer{match[1]}.{int(match[2]) - 1}"


def _translated(name: str) -> str:
    for pattern, new in _PYCLS:
        name = re.sub(pattern, new, name)
    return name


def _prefixes_of(named: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which most of the trunk's names are found; one that follows none first."""
    first = next(iter(own))
    prefixes = {name.removesuffix(first) for name in named if name.endswith(first)} or {""}
    counts = {prefix: sum(prefix + name in named for name in own) for prefix in prefixes}
    most = [prefix for prefix in prefixes if counts[prefix] == max(counts.values())]
    return sorted(most, key=lambda prefix: (any(f in prefix for f in _FOLLOWERS), prefix))


def _between(left: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Parts of the library's model that its classifier's vector goes through and ours does not."""
    names = [name for name in (*own, *left) if _BETWEEN.search(name)]
    names += [name for name in left if _LEFT_BETWEEN.search(name)]
    names += [name for name in own if name.endswith(_CLASS_TOKENS)]
    return list(dict.fromkeys(name.removesuffix(".bias").removesuffix(".weight") for name in names))


def _classifier_in(named: dict[str, Tensor], num_channels: int) -> dict[str, Tensor]:
    """Take a linear classifier of the trunk's channels out of what is left."""
    for name in sorted(named):
        stem = name.removesuffix(".weight")
        fits = named[name].ndim == _MATRIX and named[name].shape[1] == num_channels
        is_one = any(f".{stem}".endswith(f".{known}") for known in _CLASSIFIERS)
        if fits and stem != name and is_one and f"{stem}.bias" in named:
            return {"weight": named.pop(name), "bias": named.pop(f"{stem}.bias")}
    return {}
