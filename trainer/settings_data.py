"""Flags of the training program: photos, batches, views."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from multigrain.config import Config

# What `multigrain.transforms.Preprocessing` takes; importing it would cost --help a second.
SMALLEST_SIDE = 32
LARGEST_SIDE = 2048

Augment = Literal["torch", "full", "autoaugment", "randaugment", "trivial", "strong"]


class DataSettings(Config):
    """Which photos, how they are batched, and how views of them differ."""

    data: tuple[Path, ...] = Field(
        min_length=1,
        description="photos: a folder (its sub-folders are classes), a CSV, JSONL or Parquet "
        "manifest, a folder of tar shards, or a cache; repeatable, classes join by name",
    )
    val: tuple[Path, ...] = Field(
        default=(), description="photos to validate on, instead of a split; repeatable"
    )
    val_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of --data kept for validation without --val"
    )

    sampler: Literal["repeated", "pk"] = Field(
        default="repeated", description="repeated augmentation, or P classes x K photos"
    )
    photos_per_class: int = Field(default=4, ge=2, description="K of --sampler pk")
    num_views: int = Field(default=3, ge=1, description="views of a photo in a batch")
    batch_size: int = Field(default=504, ge=1, description="views in a step, of all processes")

    size: int = Field(
        default=224,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of a training view, pixels",
    )
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest share of a photo that a view shows"
    )
    augment: Augment = Field(default="full", description="how views differ beyond the crop")
    mixup: float = Field(
        default=0.0, ge=0, description="alpha of mixup; mixed views are no instance"
    )
    cutmix: float = Field(
        default=0.0, ge=0, description="alpha of cutmix; mixed views are no instance"
    )
    mix_share: float = Field(
        default=0.5, gt=0, le=1, description="share of the views that mixup and cutmix take"
    )
    erasing: float = Field(
        default=0.0, ge=0, le=1, description="chance that a part of a view is erased"
    )

    num_workers: int | None = Field(
        default=None,
        ge=0,
        description="loading workers of each process: processes, or threads where training is on "
        "a CPU; 0: none; unset: by cores",
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of unreadable photos above which the run stops; one is always allowed",
    )
