"""The checkpoint file: tensors and one JSON document in one safetensors file.

It needs no trainer and runs no pickle. Loading is strict: a missing or an extra tensor is an
error, never a guess.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multigrain.backbone import without_memory
from multigrain.document import FORMAT, Document
from multigrain.errors import MultiGrainError
from multigrain.files import write_via_temporary
from multigrain.model import MultiGrain

_FORMAT_KEY = "multigrain.format"
_DOCUMENT_KEY = "multigrain.document"


class CheckpointError(MultiGrainError):
    """A file that is not a checkpoint of this format, or whose parts disagree."""


class Checkpoint(NamedTuple):
    """A model in evaluation mode, its document, and the fingerprint of its embedding."""

    model: MultiGrain
    document: Document
    fingerprint: str


def save_checkpoint(path: Path, model: MultiGrain, document: Document) -> str:
    """Write model and document as one file, whole or not at all; return the fingerprint.

    Raises CheckpointError when the tensors are not those the document describes, and for a
    document that could not be read back.
    """
    text = _checked_text(path, document)
    tensors = {name: _plain(tensor) for name, tensor in model.state_dict().items()}
    _check_names(path, tensors, _wanted(document))
    metadata = {_FORMAT_KEY: str(FORMAT), _DOCUMENT_KEY: text}
    with write_via_temporary(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=metadata)
        except SafetensorError as error:  # how it tells of a full disk
            raise CheckpointError(f"{path} cannot be written: {error}") from error
    return fingerprint_of(tensors, document)


def load_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint file; raises CheckpointError with what does not fit."""
    document = read_document(path)
    tensors = _read_tensors(path)
    model = MultiGrain.build(document)
    _check_names(path, tensors, model.state_dict())
    model.load_state_dict(tensors, strict=True)
    fingerprint = fingerprint_of(tensors, document)
    p_at_size = document.pooling.p_by_size.get(document.preprocessing.size)
    if p_at_size is not None and model.pool.p is not None:
        model.pool.p.data.fill_(p_at_size)
    return Checkpoint(model.eval(), document, fingerprint)


def read_document(path: Path) -> Document:
    """The document alone, without reading the tensors; raises CheckpointError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    found = metadata.get(_FORMAT_KEY)
    if found != str(FORMAT):
        raise CheckpointError(
            f"{path}: {_FORMAT_KEY} is {found!r}, this version reads {FORMAT}: make a "
            f"checkpoint with trainer.pretrained or trainer/train.py"
        )
    try:
        return Document.model_validate_json(metadata[_DOCUMENT_KEY])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path}: its document is damaged: {error}") from error


def fingerprint_of(tensors: Mapping[str, Tensor], document: Document) -> str:
    """SHA-256 over the tensors and the document's parts that change an embedding.

    The classifier is left out: it changes no embedding.
    """
    digest = hashlib.sha256(document.embedding_digest())
    for name in sorted(name for name in tensors if not name.startswith("classifier.")):
        tensor = _plain(tensors[name])
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checked_text(path: Path, document: Document) -> str:
    """The document as JSON; a copy with changed values has not been checked until here."""
    text = document.model_dump_json()
    try:
        Document.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} is not written, no program could read it: {error}"
        ) from error
    return text


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"no checkpoint at {path}")
    return CheckpointError(f"{path} is not a checkpoint file: {error}")


def _wanted(document: Document) -> dict[str, Tensor]:
    """Names and shapes of the tensors that a document describes."""
    return without_memory(partial(MultiGrain.build, document)).state_dict()


def _check_names(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path}: tensors and document disagree: missing {missing[:5]}, extra {extra[:5]}"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, the document says "
                f"{tuple(tensor.shape)}"
            )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").contiguous()
