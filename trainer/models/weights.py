"""Initial weights of a model: all that fits is taken, and what does not is an error or said."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from multigrain.backbone import Backbone
from multigrain.model import MultiGrain
from trainer.models.weights_sources import DEFAULT, Weights, WeightsError, read_weights

__all__ = ["DEFAULT", "NONE", "WeightsError", "fill_trunk", "load_weights"]

NONE = "none"

# What torchvision's and timm's families call their classifier; another trunk's own is of no
# use to ours. ConvNeXt's and ViT's last norms stand in front of it, behind the pooling.
_CLASSIFIERS = ("classifier.", "fc.", "head.", "heads.", "fc_norm.", "last_linear.")
# Files older than torch 0.4.1 lack the counter, and nothing here reads it.
_COUNTER = "num_batches_tracked"

Say = Callable[[str], None]


def load_weights(
    model: MultiGrain,
    source: str,
    *,
    class_names: tuple[str, ...] | None = None,
    allow: Sequence[str] = (),
    say: Say,
) -> dict[str, str]:
    """Fill a model from `none`, `DEFAULT`, a file, a run or a name; return what to record.

    The trunk is taken whole or not at all: a tensor that is missing, left over or of another
    shape raises WeightsError, unless a pattern of `allow` (`*` is anything) matches its name in
    the trunk's library. The classifier of another library is dropped. Of one of our own
    checkpoint files reduction, neck, and a classifier of the same classes are taken too;
    whatever starts from random weights instead is said.
    """
    if source == NONE:
        return {}
    weights = read_weights(source, model.backbone)
    fill_trunk(model.backbone, weights, allow=allow, say=say)
    _fill_part(model, "reduce", weights, say=say)
    _fill_part(model, "neck", weights, say=say)
    _fill_classifier(model, weights, class_names, say=say)
    if any(name.startswith("whiten.") for name in weights.others):
        say(f"{source}: its whitening is left out, it belongs to its own training")
    return weights.origin


def fill_trunk(backbone: Backbone, weights: Weights, *, allow: Sequence[str], say: Say) -> None:
    """Copy the trunk's weights; raises WeightsError for what neither fits nor is allowed."""
    own = backbone.library_state()
    misshapen = [
        name
        for name in own.keys() & weights.trunk.keys()
        if own[name].shape != weights.trunk[name].shape and _allowed(name, allow)
    ]
    report = backbone.load_library_state(weights.trunk, skip=frozenset(misshapen))
    dropped = [name for name in report.unexpected if name.startswith(_CLASSIFIERS)]
    unexpected = sorted(set(report.unexpected) - set(dropped))
    missing = [name for name in report.missing if not name.endswith(_COUNTER)]
    wrong_missing = [name for name in missing if not _allowed(name, allow)]
    wrong_unexpected = [name for name in unexpected if not _allowed(name, allow)]
    if wrong_missing or wrong_unexpected:
        raise WeightsError(
            f"{weights.source} does not fit {backbone.name}: missing {_some(wrong_missing)}, "
            f"left over {_some(wrong_unexpected)}: name the trunk these weights were made for, or "
            f"allow the names (--weights-allow)"
        )
    if missing or unexpected:
        say(
            f"{weights.source}: allowed: random {_some(missing)}"
            f"{f', of another shape {_some(misshapen)}' if misshapen else ''}, "
            f"left over {_some(unexpected)}"
        )
    if dropped:
        say(f"{weights.source}: its classifier is dropped ({len(dropped)} tensors)")
    elif weights.document is None:
        say(f"{weights.source}: it has no classifier, only the trunk is taken")


def _fill_part(model: MultiGrain, part: str, weights: Weights, *, say: Say) -> None:
    """Take a part behind the trunk from a file of ours, if it is there and of the same shape."""
    wanted = _tensors_of(model.state_dict(), part)
    found = _tensors_of(weights.others, part)
    if wanted and _same_shapes(wanted, found):
        model.load_state_dict(found, strict=False)
        say(f"{weights.source}: its {part} is taken")
    elif wanted:
        say(f"the {part} starts from random weights: {weights.source} has none of its shape")
    elif found:
        say(f"{weights.source}: its {part} is left out, this model has none")


def _fill_classifier(
    model: MultiGrain, weights: Weights, class_names: tuple[str, ...] | None, *, say: Say
) -> None:
    if model.classifier is None:
        if _tensors_of(weights.others, "classifier"):
            say(f"{weights.source}: its classifier is left out, this model has none")
        return
    theirs = weights.document.classifier if weights.document is not None else None
    wanted = _tensors_of(model.state_dict(), "classifier")
    found = _tensors_of(weights.others, "classifier")
    if theirs is not None and theirs.class_names == class_names and _same_shapes(wanted, found):
        model.load_state_dict(found, strict=False)
        num_classes = len(theirs.class_names)
        say(f"{weights.source}: its classifier of the same {num_classes} classes is taken")
        return
    reason = (
        "has other classes or another kind of head" if theirs is not None else "has none of ours"
    )
    say(f"the classifier starts from random weights: {weights.source} {reason}")


def _tensors_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(f"{part}.")}


def _same_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> bool:
    return {name: t.shape for name, t in wanted.items()} == {
        name: t.shape for name, t in found.items()
    }


def _allowed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}, ...)" if names else "nothing"
