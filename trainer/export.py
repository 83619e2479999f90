"""Export a checkpoint as ONNX or as a torch program, and check it before it is kept.

The file takes `pixels` [N, 3, H, W], RGB in 0..255, and gives `embedding` [N, D], unit rows
(pooled, reduced, whitened as in the checkpoint), and `logits` [N, K] when the checkpoint has a
classifier. How photos become pixels stands in its metadata as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.speech import say

if TYPE_CHECKING:
    from multigrain.checkpoint import Checkpoint

PROG = "python -m trainer.export"

_MOST_PHOTOS = 16


class ExportConfig(Config):
    """Flags of the export."""

    checkpoint: Path = Field(description="checkpoint file to export")
    out: Path = Field(description="file to write")
    format: Literal["onnx", "torch"] = Field(
        default="onnx", description="ONNX (extra onnx), or torch's exported program (.pt2)"
    )
    input: Literal["uint8", "float32"] = Field(
        default="uint8", description="type of the pixels; both in 0..255"
    )
    dynamic: Literal["size", "batch"] = Field(
        default="size",
        description="what may vary: batch and photo size, or the batch alone",
    )
    photos: list[Path] = Field(
        default=[],
        description="photos to check the export on, beside noise; repeatable",
    )

    @model_validator(mode="after")
    def _metadata_needs_a_name(self) -> Self:
        if self.out == self.checkpoint:
            raise ValueError("--out is the checkpoint itself: name another file")
        return self


def export(config: ExportConfig) -> Path:
    """Write the exported file and return its path.

    It is compared with the checkpoint on several batch sizes and shapes; below a cosine of
    0.9999 ExportError is raised and no file is left behind.
    """
    from multigrain.checkpoint import load_checkpoint
    from multigrain.files import write_via_temporary
    from trainer.inputs.labels import read_photos
    from trainer.models import export_check, export_graph

    check_out_file(config.out)
    if config.format == "onnx":
        export_graph.check_onnx()
    checkpoint = load_checkpoint(config.checkpoint)
    preprocessing = checkpoint.document.preprocessing
    shapes = preprocessing.shapes()
    if config.dynamic == "batch" and len(shapes) > 1:
        raise export_graph.ExportError(
            f"photos of this checkpoint have {len(shapes)} shapes (rule whole), so --dynamic batch "
            f"cannot hold them: export with --dynamic size, or make a checkpoint with rule crop"
        )
    batches = export_check.noise_batches(preprocessing, dynamic=config.dynamic)
    if config.photos:
        photos = read_photos(config.photos, say=say)
        batches += export_check.photo_batches(photos, preprocessing, most=_MOST_PHOTOS, say=say)
    traced = export_graph.trace(
        checkpoint.model, shape=shapes[0], dynamic=config.dynamic, input_type=config.input
    )
    save, runner = {
        "onnx": (export_graph.save_onnx, export_check.onnx_runner),
        "torch": (export_graph.save_torch, export_check.torch_runner),
    }[config.format]
    with write_via_temporary(config.out) as temporary:
        save(traced, temporary, metadata=metadata_of(checkpoint, input_type=config.input))
        cosine = export_check.check(
            runner(temporary), checkpoint.model, batches, input_type=config.input
        )
    say(f"{config.out}: cosine at least {cosine:.6f} on {len(batches)} batches")
    return config.out


def metadata_of(checkpoint: "Checkpoint", *, input_type: str) -> dict[str, str]:
    """What a program that runs the file must know, as text by name."""
    document = checkpoint.document
    classes = document.classifier.class_names if document.classifier else ()
    return {
        "multigrain.fingerprint": checkpoint.fingerprint,
        "multigrain.input": f"{input_type} [N, 3, H, W], RGB in 0..255",
        "multigrain.preprocessing": document.preprocessing.model_dump_json(),
        "multigrain.class_names": json.dumps(classes),
        "multigrain.document": document.model_dump_json(),
    }


def main() -> int:
    """Export the checkpoint that the flags name and print the file's path."""
    config = load_config(
        ExportConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(export(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
