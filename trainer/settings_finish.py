"""Flags of the training program: from trained weights to a checkpoint in use."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from multigrain.config import Config
from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE

WHITEN_POWER = 0.25  # more, fitted on few photos, makes class retrieval worse (docs/quality.md)
WHITEN_FLOOR = 1e-3  # of the largest eigenvalue; below it few photos measure only noise
EXPONENTS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)


Size = Annotated[int, Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE)]
Exponent = Annotated[float, Field(gt=0)]
WhitenPower = Annotated[
    float, Field(ge=0, le=1, description="1: full whitening, 0: centre and rotate only")
]
WhitenFloor = Annotated[
    float, Field(ge=0, le=1, description="smallest eigenvalue, as a share of the largest")
]


class FinishSettings(Config):
    """The model's input in use, its exponents, its whitening, and the report."""

    test_size: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the model's input in use; unset: --size",
    )
    rule: Literal["crop", "whole"] = Field(
        default="whole", description="input in use: central square, or the whole photo"
    )
    more_test_sizes: tuple[Size, ...] = Field(
        default=(),
        description="sides for which an exponent is found as well, for trainer.whiten --size; "
        "repeatable",
    )
    exponents: tuple[Exponent, ...] = Field(
        default=EXPONENTS,
        description="exponents p* tried on the validation photos, in one pass a size; repeatable; "
        "[] in a file: keep --p",
    )
    whiten_dim: int | None = Field(
        default=None,
        ge=0,
        description="0: none; unset: at most a quarter of the photos, none below 32",
    )
    whiten_photos: int = Field(
        default=20_000, ge=1, description="training photos to fit the whitening on, at most"
    )
    whiten_power: WhitenPower = WHITEN_POWER
    whiten_floor: WhitenFloor = WHITEN_FLOOR
    expect: dict[str, tuple[float, float]] | Path = Field(
        default={},
        description="YAML file of `metric: [low, high]` (in a --config file the block itself) of "
        "the finished checkpoint's scores; one outside ends the program with status 1",
    )
    report: bool = Field(
        default=True, description="write report.html, with small pictures of validation photos"
    )
