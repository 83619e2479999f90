"""Make a checkpoint of another project's weights: torchvision, timm, pycls, pymetric, MultiGrain.

The trunk is taken whole or refused; beside it the exponent of GeM is understood, and a linear
classifier when its classes are named. The original MultiGrain's whitening is not: it works on
[e; 1], which a checkpoint does not hold; fit a new one with trainer.whiten.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE
from trainer.settings_model import Pooling
from trainer.speech import say

if TYPE_CHECKING:
    from torch import Tensor

    from multigrain.document import Document
    from trainer.models.foreign import Foreign

PROG = "python -m trainer.convert"

_USUAL_P = 3.0
_MOST_NAMES = 8


class ConvertConfig(Config):
    """Flags of the conversion."""

    model_config = ConfigDict(allow_inf_nan=False)

    weights: Path = Field(description="file of weights, .pth or .safetensors; no pickle is run")
    backbone: str = Field(description="its trunk: torchvision's name, or timm:NAME (extra timm)")
    out: Path = Field(description="checkpoint file to write")
    bgr: bool = Field(
        default=False, description="trained on BGR photos (pycls, pymetric): turned to RGB"
    )
    class_names: Path | None = Field(
        default=None, description="text file, a class a line, to keep the linear classifier"
    )
    pooling: Pooling = Field(default="gem", description="how the last map becomes a vector")
    p: float | None = Field(
        default=None, gt=0, description="exponent of GeM; unset: the file's own, or 3"
    )
    size: int = Field(
        default=224,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the model's input, pixels",
    )
    rule: Literal["crop", "whole"] = Field(
        default="whole", description="central square, or the whole photo"
    )
    weights_licence: str = Field(default="unknown", description="licence of the weights, recorded")


def convert(config: ConvertConfig) -> Path:
    """Write the checkpoint and return its path; raises WeightsError for a trunk in parts."""
    from multigrain.checkpoint import save_checkpoint
    from multigrain.classifier import LinearClassifier
    from multigrain.model import MultiGrain
    from multigrain.pooling import build_pooling
    from trainer.models import foreign
    from trainer.models.model_parts import check_shapes
    from trainer.models.weights_sources import read_tensors

    check_out_file(config.out)
    tensors = foreign.tensors_in(read_tensors(config.weights), say=say)
    document = _document(config)
    model = MultiGrain.build(document)
    check_shapes(model.backbone, set(document.preprocessing.shapes()))
    found = foreign.understand(tensors, model.backbone, say=say)
    foreign.fill(model.backbone, found.trunk, bgr=config.bgr)
    document = _with_exponent(config, document, found.p)
    document = _with_classes(config, document, found)
    model.pool = build_pooling(document.pooling.kind, p=document.pooling.p)
    if document.classifier is not None:
        num_classes = len(document.classifier.class_names)
        model.classifier = LinearClassifier(document.backbone.feature_dim, num_classes)
        model.classifier.load_state_dict(found.classifier)
    for line in _what_is_left(config, found):
        say(line)
    save_checkpoint(config.out, model, document)
    return config.out


def _document(config: ConvertConfig) -> "Document":
    from multigrain.document import Document, EmbeddingSpec
    from multigrain.files import sha256_of
    from trainer.models.model_parts import (
        backbone_spec,
        pooling_spec,
        preprocessing_of,
        software_of,
    )
    from trainer.models.weights_sources import printable

    trunk = backbone_spec(config.backbone)
    origin = {"weights": printable(config.weights), "weights_sha256": sha256_of(config.weights)}
    return Document(
        backbone=trunk,
        pooling=pooling_spec(config.pooling, config.p or _USUAL_P),
        embedding=EmbeddingSpec(dim=trunk.feature_dim),
        preprocessing=preprocessing_of(config.backbone, size=config.size, rule=config.rule),
        weights_licence=config.weights_licence,
        software=software_of(config.backbone) | origin,
    )


def _with_exponent(
    config: ConvertConfig, document: "Document", tensor: "Tensor | None"
) -> "Document":
    """Take the file's own exponent, unless another is asked for."""
    from trainer.models.foreign import exponent_of

    if tensor is None or config.p is not None or config.pooling != "gem":
        return document
    p = exponent_of(tensor)
    say(f"the exponent is the file's own, {p:g}")
    return document.model_copy(update={"pooling": document.pooling.model_copy(update={"p": p})})


def _with_classes(config: ConvertConfig, document: "Document", found: "Foreign") -> "Document":
    from multigrain.document import ClassifierSpec
    from trainer.models.foreign import class_names_for

    if config.class_names is None:
        return document
    names = class_names_for(found, config.class_names)
    if found.p is None and config.pooling != "avg":
        say(
            f"the classifier was trained behind average pooling, and scores "
            f"lower behind {config.pooling}: --pooling avg keeps its scores"
        )
    return document.model_copy(update={"classifier": ClassifierSpec(class_names=names)})


def _what_is_left(config: ConvertConfig, found: "Foreign") -> list[str]:
    """What of the file is not in the checkpoint, in lines."""
    lines = []
    if found.classifier and config.class_names is None:
        num_classes = len(found.classifier["weight"])
        kept = f"it works behind {found.between[0]}" if found.between else "--class-names keeps it"
        lines.append(f"the classifier of {num_classes} classes is left out: {kept}")
    if found.has_whitening:
        lines.append(
            "the whitening is left out, it works on [e; 1], and the classifier beside it expects "
            "whitened vectors: fit a new one with python -m trainer.whiten"
        )
    if found.left:
        names = ", ".join(found.left[:_MOST_NAMES])
        lines.append(f"{len(found.left)} tensors are not understood and left out: {names}")
    return lines


def main() -> int:
    """Convert the file that the flags name and print the checkpoint's path."""
    config = load_config(
        ConvertConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(convert(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
