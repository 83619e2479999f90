"""Whether an exported file computes what the checkpoint computes, on batches of several shapes.

N batch, D embedding, K classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from multigrain.model import MultiGrain
from multigrain.photo import PhotoError
from multigrain.transforms import Preprocessing
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import prepared_photo, spread
from trainer.models.export_graph import Dynamic, ExportError, InputType

MIN_COSINE = 0.9999
# Of the largest logit's size.
LOGIT_TOLERANCE = 1e-3
_BATCHES_OF_NOISE = (1, 3)
_STRIDE = 32

Batch = npt.NDArray[np.uint8]  # [N, 3, H, W]
# Takes pixels [N, 3, H, W] as the file wants them; returns its outputs in their order.
Run = Callable[[npt.NDArray[Any]], Sequence[npt.NDArray[np.float32]]]


def noise_batches(preprocessing: Preprocessing, *, dynamic: Dynamic) -> list[Batch]:
    """One and three pictures of noise in every shape of the rule, and in one it does not have."""
    shapes = list(preprocessing.shapes())
    if dynamic == "size":
        shapes.append((preprocessing.size + _STRIDE, preprocessing.size + 2 * _STRIDE))
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (count, 3, *shape), dtype=np.uint8)
        for shape in shapes
        for count in _BATCHES_OF_NOISE
    ]


def photo_batches(
    photos: PhotoSet, preprocessing: Preprocessing, *, most: int, say: Callable[[str], None]
) -> list[Batch]:
    """Photos of every source as the rule prepares them, those of one shape together.

    One that cannot be read is named and left out; raises ExportError when none can.
    """
    by_shape: dict[tuple[int, ...], list[npt.NDArray[np.uint8]]] = {}
    for number in spread(len(photos.names), most):
        try:
            pixels = prepared_photo(photos, number, preprocessing)
        except PhotoError as error:
            say(f"{photos.names[number]} is left out: {error}")
            continue
        by_shape.setdefault(pixels.shape, []).append(pixels)
    if not by_shape:
        raise ExportError(f"--photos {photos.root}: none of the photos tried can be read")
    return [np.stack(group).transpose(0, 3, 1, 2) for group in by_shape.values()]


def check(run: Run, model: MultiGrain, batches: Sequence[Batch], *, input_type: InputType) -> float:
    """Return the smallest cosine to the model's own embeddings; raises ExportError below 0.9999.

    Logits, where there are any, must agree within a thousandth of the largest.
    """
    smallest = 1.0
    for batch in batches:
        with torch.inference_mode():
            expected = model(torch.from_numpy(batch.copy()))
        found = run(np.ascontiguousarray(batch.astype(input_type)))
        cosine = float((found[0] * expected.embedding.numpy()).sum(axis=1).min())
        smallest = min(smallest, cosine)
        if not cosine >= MIN_COSINE:
            raise ExportError(
                f"the exported model disagrees with the checkpoint (cosine {cosine:.5f} on "
                f"{len(batch)} photos of {batch.shape[2]} x {batch.shape[3]}): nothing is written; "
                f"try --dynamic batch"
            )
        if expected.logits is not None:
            _check_logits(found[1], expected.logits.numpy())
    return smallest


def _check_logits(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    off = float(np.abs(found - expected).max())
    if not off <= LOGIT_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the exported classifier is off by {off:.2g} from the checkpoint's: nothing is written"
        )


def onnx_runner(path: Path) -> Run:
    """Run an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})


def torch_runner(path: Path) -> Run:
    """Run an exported program of torch, as it is read back from its file."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(pixels: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(pixels))]

    return run
