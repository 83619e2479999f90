"""Photos to train on and to validate on, and this process's batches of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from multigrain.errors import MultiGrainError
from trainer.engine.processes import Processes
from trainer.inputs.augment import Augmentation
from trainer.inputs.augment_device import DevicePart, edits_of
from trainer.inputs.cache_reader import CacheStore
from trainer.inputs.labels import (
    PhotoSet,
    read_joined,
    split_by_hash,
    split_by_source,
    with_classes_of,
)
from trainer.inputs.loading import Batch, Plan, Steps, ViewsDataset, batch_loader, threaded_batches
from trainer.inputs.manifest import TRAIN, VAL
from trainer.inputs.mix import MixSettings
from trainer.inputs.photo_sources import Joined
from trainer.settings import TrainConfig
from trainer.settings_data import DataSettings

MOST_WORKERS = 8
CORES_PER_THREAD = 8  # of the threads that load where the model is on the CPU too

Say = Callable[[str], None]


class DataError(MultiGrainError):
    """Settings that do not fit the photos."""


class Data(NamedTuple):
    """Photos to train on and to validate on, and the weight of their classes."""

    training: PhotoSet
    validation: PhotoSet
    lambda_: float


def read_data(config: TrainConfig, *, say: Say) -> Data:
    """Read the folder, split it, and decide on lambda.

    Raises DataError for a lambda above 0 without classes.
    """
    joined = read_joined(config.data, say=say)
    photos = joined.photos
    if config.val:
        training = _own_part(joined, TRAIN)
        if len(training.names) < len(photos.names):
            rest = len(photos.names) - len(training.names)
            say(f"{rest} photos whose split is not {TRAIN} are left out, because of --val")
        validation = with_classes_of(_own_part(read_joined(config.val, say=say), VAL), training)
    else:
        found = split_by_source(joined, say=say)
        training, validation = found or split_by_hash(photos, config.val_fraction)
    num_classes = len(photos.class_names or ())
    if num_classes:
        lambda_ = 0.5 if config.lambda_ is None else config.lambda_
    elif config.lambda_:
        raise DataError(
            f"--lambda {config.lambda_} needs classes, and {config.data[0]} has none: "
            f"put the photos of each class into a sub-folder, or leave the flag out"
        )
    else:
        lambda_ = 0.0
        say(f"{config.data[0]}: no classes, so lambda is 0 and training is on instances alone")
    if lambda_ == 0 and (config.mixup or config.cutmix):
        raise DataError(
            f"--mixup {config.mixup} --cutmix {config.cutmix} mix classes, and lambda is 0: "
            f"leave them out, or train on classes"
        )
    say(
        f"{len(training.names)} photos to train on, {len(validation.names)} to validate on, "
        f"{num_classes} classes, lambda {lambda_}"
    )
    say(_rung(training, config.num_views))
    _say_small_caches((training, validation), config, say)
    return Data(training, validation, lambda_)


def _own_part(joined: Joined, split: str) -> PhotoSet:
    """Return the photos of a split, where a source knows any; else all of them.

    Raises DataError when none is of the split.
    """
    if not any(joined.splits):
        return joined.photos
    ids = [number for number, own in enumerate(joined.splits) if (own or split) == split]
    if not ids:
        raise DataError(f"{joined.photos.root}: no photo's split is {split}")
    return joined.photos.pick(ids)


def build_batches(
    config: TrainConfig,
    data: Data,
    plan: Plan,
    processes: Processes,
    *,
    start: int,
    stop: int,
) -> Iterable[Batch]:
    """Load this process's batches for the steps start .. stop - 1."""
    augmentation = Augmentation(size=config.size, seed=config.seed, area=(config.min_area, 1.0))
    dataset = ViewsDataset(data.training, augmentation, num_views=config.num_views)
    steps = Steps(plan, rank=processes.rank, start=start, stop=stop)
    on_gpu = processes.device.type == "cuda"
    num_workers = config.num_workers
    if num_workers is None:
        num_workers = _workers_by_cores(torch.get_num_threads(), on_gpu=on_gpu)
    if not on_gpu and num_workers:
        return threaded_batches(dataset, steps, num_threads=num_workers)
    return batch_loader(dataset, steps, num_workers=num_workers, pin_memory=on_gpu)


def _workers_by_cores(num_cores: int, *, on_gpu: bool) -> int:
    """Return how many workers load, of this process's cores.

    On a CPU the model needs them more: a view costs it ten times what it costs to load.
    """
    if on_gpu:
        return min(MOST_WORKERS, num_cores)
    return max(1, num_cores // CORES_PER_THREAD)


def _rung(photos: PhotoSet, num_views: int) -> str:
    """Say which rung of the ladder of loading the photos stand on."""
    kinds = list(dict.fromkeys(store.kind for store in photos.stores))
    times = f", decoded once for {num_views} views" if num_views > 1 else ""
    hint = "" if all("cache" in kind for kind in kinds) else "; trainer.cache makes it faster"
    return f"photos are read from {' and '.join(kinds)}{times}{hint}"


def _say_small_caches(sets: Sequence[PhotoSet], config: TrainConfig, say: Say) -> None:
    """Say it when the photos of a cache are smaller than what the run wants to see."""
    sides = [s.side for photos in sets for s in photos.stores if isinstance(s, CacheStore)]
    wanted = {"--size": config.size, "--test-size": config.test_size or config.size}
    wanted["--more-test-sizes"] = max(config.more_test_sizes, default=0)
    flag, most = max(wanted.items(), key=lambda item: item[1])
    if sides and min(sides) < most:
        say(
            f"a cache holds photos of side {min(sides)}, below {flag} {most}: they are enlarged; "
            f"build it with trainer.cache --side {most} or more"
        )


def build_device_part(config: TrainConfig, processes: Processes) -> DevicePart:
    """Build what the device does to a batch before the model sees it."""
    return device_part_of(config, seed=config.seed, rank=processes.rank)


def device_part_of(config: DataSettings, *, seed: int, rank: int) -> DevicePart:
    """Build the same from the settings of views alone."""
    mixing = None
    if config.mixup or config.cutmix:
        mixing = MixSettings(config.mixup, config.cutmix, config.mix_share, seed)
    edits = edits_of(config.augment, erasing=config.erasing)
    return DevicePart(edits, mixing=mixing, rank=rank)
