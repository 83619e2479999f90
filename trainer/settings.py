"""The flags of the training program."""

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from multigrain.config import Config

# What `multigrain.transforms.Preprocessing` takes; importing it would cost --help a second.
SMALLEST_SIDE = 32
LARGEST_SIDE = 2048
WHITEN_POWER = 0.5  # full whitening, fitted on few photos, makes retrieval worse


class TrainConfig(Config):
    """Train a MultiGrain embedding; the defaults are the paper's recipe with a cosine."""

    model_config = ConfigDict(allow_inf_nan=False)

    data: Path = Field(description="photos; sub-folders are classes, a flat folder has none")
    out: Path = Field(description="folder of the run")
    val: Path | None = Field(default=None, description="photos to validate on, instead of a split")
    val_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of --data kept for validation without --val"
    )

    backbone: str = Field(default="resnet50", description="trunk, by torchvision's name")
    weights: str = Field(
        default="none", description="initial weights: none, DEFAULT, or a .pth/.safetensors file"
    )
    weights_licence: str = Field(default="unknown", description="licence of the weights, recorded")
    p: float = Field(default=3.0, gt=0, description="exponent of the GeM pooling")
    learn_p: bool = Field(default=False, description="learn the exponent")

    lambda_: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="lambda: weight of the classes beside the instances; "
        "unset: 0.5 with classes, 0 without",
    )
    alpha: float = Field(default=0.2, ge=0, description="margin of the margin loss")
    beta: float = Field(default=1.2, gt=0, description="its distance boundary at the start")
    negatives: Literal["uniform", "distance"] = Field(
        default="uniform", description="how negatives are drawn"
    )
    effective_dim: int = Field(
        default=128, ge=4, description="dimension in the distance weights' density"
    )

    size: int = Field(
        default=224,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of a training view, pixels",
    )
    test_size: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the model's input in use; unset: --size",
    )
    rule: Literal["crop", "whole"] = Field(
        default="whole", description="input in use: central square, or the whole photo"
    )
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest share of a photo that a view shows"
    )
    num_views: int = Field(default=3, ge=1, description="views of a photo in a batch")
    batch_size: int = Field(default=504, ge=1, description="views in a step, of all processes")
    epochs: float = Field(default=120, gt=0, description="passes over the photos")
    steps: int | None = Field(default=None, ge=1, description="length in steps; overrides --epochs")

    learning_rate: float = Field(default=0.2, gt=0, description="peak rate of SGD")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(default=1e-4, ge=0, description="of weights")
    decay_norms: bool = Field(default=False, description="decay norms and biases too")
    beta_rate_factor: float = Field(default=0.01, ge=0, description="beta's share of the rate")
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of training in which the rate climbs"
    )

    whiten_dim: int | None = Field(
        default=None, ge=0, description="0: none; unset: at most a quarter of the photos"
    )
    whiten_photos: int = Field(
        default=20_000, ge=1, description="training photos to fit the whitening on, at most"
    )
    whiten_power: float = Field(
        default=WHITEN_POWER,
        ge=0,
        le=1,
        description="1: full whitening, 0: centre and rotate only",
    )

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="of the trunk; auto: bf16 on GPUs that have it, else fp32"
    )
    num_workers: int | None = Field(
        default=None, ge=0, description="loading processes of each process; unset: by cores"
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="threads of each process on the CPU; unset: by cores"
    )
    seed: int = Field(default=0, ge=0, description="of every random choice")

    log_every_steps: int = Field(default=20, ge=1, description="steps between log lines")
    validate_every_epochs: float = Field(
        default=1.0, gt=0, description="passes between validations"
    )
    checkpoint_every_minutes: float = Field(
        default=15.0, gt=0, description="minutes between checkpoints inside a pass"
    )
    resume: Literal["no", "auto"] = Field(
        default="no", description="auto: go on from the newest complete checkpoint, if any"
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of unreadable photos above which the run stops; one is always allowed",
    )


# What may differ between a run and its continuation without changing what it computes.
FREE_ON_RESUME = frozenset(
    (
        "data", "out", "val", "device", "num_workers", "num_threads", "log_every_steps",
        "checkpoint_every_minutes", "resume", "max_bad_share", "weights_licence",
        "whiten_dim", "whiten_photos", "whiten_power",
    )
)  # fmt: skip
