"""A whole model as one exported graph: ONNX, or torch's own exported program.

N batch, D embedding, K classes.
"""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain

InputType = Literal["uint8", "float32"]
Dynamic = Literal["size", "batch"]


class ExportError(MultiGrainError):
    """A model that cannot be exported, or whose export computes something else."""


class Traced(NamedTuple):
    """An exported program and the names of what it gives."""

    program: torch.export.ExportedProgram
    outputs: list[str]


class WholeModel(nn.Module):
    """Pixels [N, 3, H, W], RGB in 0..255 -> unit embedding [N, D], and logits [N, K] if there."""

    def __init__(self, model: MultiGrain) -> None:
        super().__init__()
        self.model = model
        self.outputs = ["embedding", "logits"] if model.classifier is not None else ["embedding"]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What `outputs` names, in its order."""
        embedding, logits = self.model(pixels)
        return (embedding,) if logits is None else (embedding, logits)


def trace(
    model: MultiGrain, *, shape: tuple[int, int], dynamic: Dynamic, input_type: InputType
) -> Traced:
    """Export the model in evaluation mode, for any batch, and any size where `dynamic` says so.

    `shape` is the (height, width) exported with. Raises ExportError.
    """
    whole = WholeModel(model).eval()
    pixels = torch.zeros(2, 3, *shape, dtype=getattr(torch, input_type))
    free = torch.export.Dim.DYNAMIC
    axes = {0: free, 2: free, 3: free} if dynamic == "size" else {0: free}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            program = torch.export.export(whole, (pixels,), dynamic_shapes={"pixels": axes})
    except Exception as error:  # the exporter raises anything
        hint = "; try --dynamic batch, with one size" if dynamic == "size" else ""
        raise ExportError(
            f"{model.backbone.name} cannot be exported ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}){hint}"
        ) from error
    return Traced(program, whole.outputs)


def check_onnx() -> None:
    """Raise ExportError without what torch's ONNX exporter and the check need."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--format onnx needs {', '.join(missing)}: pip install 'multigrain-retrieval[onnx]'"
        )


def save_torch(traced: Traced, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write torch's own format (.pt2); metadata lies in it as extra files."""
    with path.open("wb") as file:  # by name, torch insists on a suffix
        torch.export.save(traced.program, file, extra_files=dict(metadata))


def save_onnx(traced: Traced, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write ONNX in one file, with its metadata."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            traced.program,
            dynamo=True,
            input_names=["pixels"],
            output_names=traced.outputs,
            verbose=False,
        )
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)
