"""Make a checkpoint from pretrained weights, without training."""

import os
import sys
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.inputs.photos import paths_of
from trainer.out_file import check_out_file
from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE
from trainer.settings_finish import WHITEN_FLOOR, WHITEN_POWER, WhitenFloor, WhitenPower
from trainer.settings_model import Pooling
from trainer.speech import say

PROG = "python -m trainer.pretrained"


class PretrainedConfig(Config):
    """Flags of the checkpoint without training."""

    model_config = ConfigDict(allow_inf_nan=False)

    backbone: str = Field(description="trunk: torchvision's name, or timm:NAME (extra timm)")
    weights: str = Field(
        default="DEFAULT",
        description="DEFAULT (the library's own, downloaded), none (random), a name or tag of the "
        "trunk's library, a .pth or .safetensors file, or a run's folder",
    )
    weights_allow: list[str] = Field(
        default=[],
        description="trunk tensors (patterns, *) that may be missing, left over or of another "
        "shape; repeatable",
    )
    last_stride: Literal[1, 2] = Field(
        default=2, description="stride of the trunk's last stage: 1 doubles the last map's sides"
    )
    tokens: Literal["patches", "class"] = Field(
        default="patches",
        description="of a ViT: what is pooled, patch tokens or the class token (--pooling avg)",
    )
    weights_licence: str = Field(default="unknown", description="licence of the weights, recorded")
    out: Path = Field(description="checkpoint file to write")
    size: int = Field(
        default=224,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the model's input, pixels",
    )
    rule: Literal["crop", "whole"] = Field(
        default="whole", description="central square, or the whole photo"
    )
    pooling: Pooling = Field(
        default="gem",
        description="how the last map becomes a vector; avg suits trunks whose map has both signs "
        "(ViT, Swin, ConvNeXt)",
    )
    p: float = Field(default=3.0, gt=0, description="exponent of the GeM pooling")
    whiten: list[Path] = Field(
        default=[],
        description="photos to fit a whitening on: folder, or CSV/JSONL list with a `path` "
        "column; repeatable",
    )
    whiten_dim: int | None = Field(
        default=None, ge=1, description="dimensions to keep; unset: at most a quarter of the photos"
    )
    whiten_power: WhitenPower = WHITEN_POWER
    whiten_floor: WhitenFloor = WHITEN_FLOOR
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the photos are embedded for the whitening"
    )

    @model_validator(mode="after")
    def _dimensions_have_photos(self) -> Self:
        if self.whiten_dim is not None and not self.whiten:
            raise ValueError(
                f"--whiten-dim {self.whiten_dim} needs photos to fit the whitening on: give "
                f"--whiten too"
            )
        if self.tokens == "class" and self.pooling != "avg":
            raise ValueError("--tokens class is one vector already: give --pooling avg")
        return self


def make_pretrained(config: PretrainedConfig) -> Path:
    """Write the checkpoint and return its path."""
    from multigrain.checkpoint import save_checkpoint
    from multigrain.document import Document, EmbeddingSpec
    from multigrain.model import MultiGrain
    from trainer.engine.processes import alone
    from trainer.finishing.fit_whitening import whiten_on
    from trainer.inputs.labels import PhotoSet
    from trainer.models.model_parts import (
        backbone_spec,
        check_shapes,
        pooling_spec,
        preprocessing_of,
        software_of,
    )
    from trainer.models.weights import load_weights

    check_out_file(config.out)
    trunk = backbone_spec(config.backbone, last_stride=config.last_stride, tokens=config.tokens)
    document = Document(
        backbone=trunk,
        pooling=pooling_spec(config.pooling, config.p),
        embedding=EmbeddingSpec(dim=trunk.feature_dim),
        preprocessing=preprocessing_of(config.backbone, size=config.size, rule=config.rule),
        weights_licence=config.weights_licence,
        software=software_of(config.backbone),
    )
    model = MultiGrain.build(document).eval()
    check_shapes(model.backbone, set(document.preprocessing.shapes()))
    origin = load_weights(model, config.weights, allow=config.weights_allow, say=say)
    document = document.model_copy(update={"software": document.software | origin})
    if config.whiten:
        processes = alone(config.device)
        model.to(processes.device)
        paths = [path for source in config.whiten for path in paths_of(source)]
        document = whiten_on(
            model,
            document,
            PhotoSet.of_paths(paths),
            dim=config.whiten_dim,
            power=config.whiten_power,
            floor=config.whiten_floor,
            processes=processes,
            say=say,
        )
    save_checkpoint(config.out, model, document)
    return config.out


def main() -> int:
    """Make the checkpoint that the flags describe and print its path."""
    config = load_config(
        PretrainedConfig,
        prog=PROG,
        description=__doc__ or "",
        argv=sys.argv[1:],
        environ=os.environ,
    )
    print(make_pretrained(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
