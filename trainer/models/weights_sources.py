"""Where initial weights come from: a file, a run, torchvision's or timm's own."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from multigrain.backbone import Backbone, split_name
from multigrain.backbone_timm import create_timm, import_timm
from multigrain.checkpoint import read_document
from multigrain.document import Document
from multigrain.errors import MultiGrainError
from multigrain.files import sha256_of

DEFAULT = "DEFAULT"

# In a run's folder, and in the metadata of a file of ours.
_MODEL_OF_A_RUN = "model.safetensors"
_FORMAT_KEY = "multigrain.format"
_TRUNK = "backbone."


class WeightsError(MultiGrainError):
    """Weights that cannot be had or do not fit."""


class Weights(NamedTuple):
    """Tensors of a trunk under its library's names, and what else came with them.

    `others` and `document` are of one of our checkpoint files: tensors behind the trunk, by
    our names. `origin` is what a checkpoint records.
    """

    source: str
    trunk: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    document: Document | None
    origin: dict[str, str]


def read_weights(source: str, backbone: Backbone) -> Weights:
    """Weights from `DEFAULT`, a file, a run's folder, or a name of the trunk's library.

    A file wins over a name, and nothing is downloaded that a file gives. A .pth is read
    without running pickled code. Raises WeightsError.
    """
    path = Path(source)
    if source != DEFAULT and path.exists():
        return _from_path(source, path / _MODEL_OF_A_RUN if path.is_dir() else path, backbone)
    library, name = split_name(backbone.name)
    if library == "timm":
        return _from_timm(source, name)
    return _from_torchvision(source, name)


def read_tensors(path: Path) -> Mapping[str, Any]:
    """What a .safetensors file holds, or the object of a .pth, read without its code."""
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # reading any other file as a pickle raises anything
        # Without torch's own words: they advise to run the code of a pickle.
        raise WeightsError(
            f"{path} is no file of weights ({type(error).__name__}): give .safetensors, or a "
            f".pth that holds a state dict"
        ) from error
    return loaded if isinstance(loaded, Mapping) else {"": loaded}


def printable(path: Path) -> str:
    """A file's name for the document, which is UTF-8; the name need not be."""
    return path.name.encode(errors="backslashreplace").decode()


def _from_path(source: str, path: Path, backbone: Backbone) -> Weights:
    if path.suffix == ".safetensors" and _is_ours(path):
        return _from_checkpoint(source, path, backbone)
    state = read_tensors(path)
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise WeightsError(
            f"{path}: not a state dict (names and tensors only); python -m trainer.convert reads "
            f"more kinds of file"
        )
    return Weights(source, state, {}, None, _origin(path))


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="pt") as file:
            return _FORMAT_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):  # told by whoever reads it next
        return False


def _from_checkpoint(source: str, path: Path, backbone: Backbone) -> Weights:
    document = read_document(path)
    library, name = split_name(backbone.name)
    theirs = document.backbone
    if (theirs.library, theirs.name) != (library, name):
        raise WeightsError(
            f"{source} holds a {theirs.name} of {theirs.library}, not {backbone.name}: name the "
            f"trunk it was made for"
        )
    tensors = load_file(path)
    prefix = _TRUNK + backbone.prefix
    trunk = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    others = {name: t for name, t in tensors.items() if not name.startswith(_TRUNK)}
    return Weights(source, trunk, others, document, _origin(path))


def _origin(path: Path) -> dict[str, str]:
    return {"weights": printable(path), "weights_sha256": sha256_of(path)}


def _from_torchvision(source: str, name: str) -> Weights:
    """Torchvision's own weights of a trunk, from its cache or the network."""
    known = torchvision.models.get_model_weights(name)
    if source not in known.__members__:
        raise WeightsError(
            f"no weights file {source}, and torchvision has no weights of that name for {name}: "
            f"give a file, a run's folder, none, or one of {', '.join(known.__members__)}"
        )
    weights = known[source]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise WeightsError(
            f"torchvision's weights of {name} cannot be downloaded ({error}): "
            f"fetch {weights.url} elsewhere and give the file"
        ) from error
    origin = {
        "weights": f"torchvision {weights}",
        "weights_url": weights.url,
        "weights_tensors_sha256": _digest(state),
    }
    return Weights(source, state, {}, None, origin)


def _from_timm(source: str, name: str) -> Weights:
    """Timm's own weights of a trunk: its default, or those of a tag."""
    base = name.partition(".")[0]
    known = [text.partition(".")[2] for text in import_timm().list_pretrained(f"{base}.*")]
    if source not in (DEFAULT, *known):
        raise WeightsError(
            f"no weights file {source}, and timm has no weights of that tag for {base}: give a "
            f"file, a run's folder, none, or one of {', '.join([DEFAULT, *known])}"
        )
    tagged = name if source == DEFAULT else f"{base}.{source}"
    try:
        state = create_timm(tagged, pretrained=True).state_dict()
    except Exception as error:  # whatever the hub's client raises
        raise WeightsError(
            f"timm's weights of {tagged} cannot be downloaded ({type(error).__name__}: {error}): "
            f"fetch them elsewhere and give the file"
        ) from error
    origin = {"weights": f"timm {tagged}", "weights_tensors_sha256": _digest(state)}
    return Weights(source, state, {}, None, origin)


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
