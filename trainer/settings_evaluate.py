"""Flags of the evaluation."""

from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from multigrain.config import Config
from trainer.settings_finish import Exponent, Size

# What says how a checkpoint embeds, and so nothing of embeddings that are there.
_OF_CHECKPOINTS = (
    "upright",
    "cache",
    "size",
    "exponent",
    "sizes",
    "exponents",
    "augment",
    "engine",
    "precision",
)


class EvaluateConfig(Config):
    """Flags of the evaluation."""

    model_config = ConfigDict(allow_inf_nan=False)

    checkpoint: Path | None = Field(default=None, description="checkpoint file to score")
    features: Path | None = Field(
        default=None,
        description="file of ready-made embeddings to score instead: .npy with a .jsonl of paths "
        "beside it, or .parquet, as index.export writes them, or a pickle of path: vector",
    )
    protocol: list[str] = Field(
        min_length=1,
        description="test set's protocol, see docs/evaluation.md; repeatable, one for each --data",
    )
    data: list[Path] = Field(
        min_length=1, description="the test set's folder, or its list; repeatable"
    )
    out: Path = Field(description="folder for results.json, queries.json and report.html")
    expect: dict[str, tuple[float, float]] | Path = Field(
        default={},
        description="YAML file of `metric: [low, high]` (in a --config file the block itself); "
        "a metric outside ends the program with status 1, as one does that leaves its interval in "
        "LIST.expect.yaml beside a list of --data",
    )
    upright: Path | None = Field(
        default=None,
        description="table of `name,quarter turns clockwise` for holidays, beside EXIF",
    )
    cache: Path | None = Field(
        default=None, description="folder of known embeddings; unset: embeddings, in --out"
    )
    size: Size | None = Field(
        default=None, description="side of the model's input; unset: the checkpoint's"
    )
    exponent: Exponent | None = Field(
        default=None, description="of the pooling; unset: the checkpoint's at that size"
    )
    sizes: tuple[Size, ...] = Field(
        default=(), description="sides to draw a curve of the first metric by; repeatable"
    )
    exponents: tuple[Exponent, ...] = Field(
        default=(), description="exponents to draw such a curve by; repeatable"
    )
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"] = Field(
        default="none",
        description="what else of each photo to embed with it, as one vector: its mirror image, "
        "the photo at half and twice the area, or both",
    )
    query_expansion: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="move each query towards so many of its nearest and search again (alpha-QE)",
    )
    gallery_expansion: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="move each photo of the gallery towards so many of its nearest before (DBA)",
    )
    k_reciprocal: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="re-rank so many nearest of each query by k-reciprocal neighbours; every "
        "metric is told of both rankings, and what that gains",
    )
    background: Path | None = Field(
        default=None,
        description="folder or list of photos that answer nothing: pooled pairs are also scored "
        "less how near the query is to these, and what that gains is told",
    )
    seed: int = Field(default=0, ge=0, description="of the bootstrap's draws")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where photos are embedded and compared"
    )
    engine: Literal["auto", "openvino", "torch"] = Field(
        default="auto", description="what computes the model on a CPU"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="of the model; scores are compared in fp32"
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.protocol) != len(self.data):
            raise ValueError(
                f"{len(self.protocol)} --protocol and {len(self.data)} --data: give one for each"
            )
        return self

    @model_validator(mode="after")
    def _source(self) -> Self:
        if (self.checkpoint is None) == (self.features is None):
            raise ValueError("give --checkpoint, or --features to score embeddings that are there")
        fields = type(self).model_fields
        given = [name for name in _OF_CHECKPOINTS if getattr(self, name) != fields[name].default]
        if self.features and given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags}: only with --checkpoint, since --features embeds nothing")
        return self
