"""Initial weights of a trunk: none, torchvision's own, or a file; never half of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from multigrain.backbone import Backbone
from multigrain.errors import MultiGrainError
from multigrain.files import sha256_of

NONE = "none"
DEFAULT = "DEFAULT"

# What torchvision's families call their classifier; another trunk's own is of no use to ours.
_CLASSIFIERS = ("classifier.", "fc.", "head.", "heads.")
# Of our own checkpoint files the trunk is taken.
_TRUNK = "backbone."
_BEHIND_TRUNK = ("pool.", "whiten.", "classifier.")
# Files older than torch 0.4.1 lack the counter, and nothing here reads it.
_COUNTER = "num_batches_tracked"


class WeightsError(MultiGrainError):
    """Weights that cannot be had or do not fit."""


def load_weights(backbone: Backbone, source: str, *, say: Callable[[str], None]) -> dict[str, str]:
    """Fill the trunk from `none`, `DEFAULT` or a file, and return what to record about it.

    A file is a torchvision state dict (.pth, read without running pickled code), or
    safetensors: such a state dict, or one of our checkpoint files. Its own classifier is
    dropped, and `say` is told. Any other tensor missing or left over raises WeightsError.
    """
    if source == NONE:
        return {}
    if source == DEFAULT:
        state, origin = _download(backbone.name)
    else:
        path = Path(source)
        state = _read_file(path)
        # A file's name need not be UTF-8; the checkpoint's document is.
        name = path.name.encode(errors="backslashreplace").decode()
        origin = {"weights": name, "weights_sha256": sha256_of(path)}
    report = backbone.load_library_state(_trunk_of(state))
    dropped = [name for name in report.unexpected if name.startswith(_CLASSIFIERS)]
    unexpected = sorted(set(report.unexpected) - set(dropped))
    missing = sorted(name for name in report.missing if not name.endswith(_COUNTER))
    if missing or unexpected:
        raise WeightsError(
            f"{source} does not fit {backbone.name}: missing {_some(missing)}, "
            f"left over {_some(unexpected)}: name the trunk these weights were made for"
        )
    if dropped:
        say(f"{source}: its classifier is dropped ({len(dropped)} tensors)")
    else:
        say(f"{source}: it has no classifier, only the trunk is taken")
    return origin


def _download(name: str) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """Return torchvision's default weights of a trunk, from its cache or the network."""
    weights = torchvision.models.get_model_weights(name)["DEFAULT"]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise WeightsError(
            f"torchvision's weights of {name} cannot be downloaded ({error}): "
            f"fetch {weights.url} elsewhere and give the file"
        ) from error
    return state, {"weights": f"torchvision {weights}", "weights_url": weights.url}


def _read_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"no weights file {path} (give none, DEFAULT or a file)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # reading any other file as a pickle raises anything
        # Without torch's own words: they advise to run the code of a pickle.
        raise WeightsError(
            f"{path} is no file of weights ({type(error).__name__}): give .safetensors, or a "
            f".pth that holds a state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise WeightsError(f"{path}: not a state dict (names and tensors only)")
    return state


def _trunk_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the trunk's part of one of our checkpoint files, any other state as it is."""
    if not any(name.startswith(_TRUNK) for name in state):
        return state
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_BEHIND_TRUNK)}
    return {name.removeprefix(_TRUNK): tensor for name, tensor in kept.items()}


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}, ...)" if names else "nothing"
