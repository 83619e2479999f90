"""Load training batches: each photo decoded once and cropped N times.

P photos of a process, N views each, S side of a view.
"""

import signal
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multigrain.ahead import in_order
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError
from multigrain.transforms import Pixels
from trainer.inputs.augment import Augmentation, random_view
from trainer.inputs.labels import PhotoSet
from trainer.inputs.sampler import Draw
from trainer.seeds import seed_of

# A crop may be a twelfth of the photo, a third of its side; twice the view's side keeps most
# crops from being enlarged and still spares most of a large photo's decoding.
DECODE_SIDES_PER_VIEW = 2
MOST_NEIGHBOURS_TRIED = 20
STEPS_AHEAD = 2
# A thread that hands over each photo wakes the others more often than they have work.
PHOTOS_PER_TASK = 4


class LoadingError(MultiGrainError):
    """Photos that cannot be read, too many to go on."""


class Plan(Protocol):
    """Which photos a process sees at a step."""

    def photos_of(self, step: int, rank: int) -> list[Draw]:
        """Return the draws of a step, in order."""


class BadPhoto(NamedTuple):
    """A photo that could not be read, and why."""

    photo_id: int
    reason: str


class Views(NamedTuple):
    """Views [N, S, S, 3] of one photo, uint8; `bad` are the photos it stands in for."""

    photo_id: int
    label: int
    pixels: Pixels
    seeds: tuple[int, ...]
    bad: tuple[BadPhoto, ...]


class Batch(NamedTuple):
    """A process's part of a step: P * N views, the views of a photo side by side."""

    pixels: Tensor  # uint8 [P * N, 3, S, S], channels last; crops, as yet of the photo's colours
    labels: Tensor  # int64 [P * N]
    photo_ids: Tensor  # int64 [P * N]
    seeds: Tensor  # int64 [P * N], of a view's random choices; stays on the host
    bad: tuple[BadPhoto, ...]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with what the model needs on the device, without waiting for it.

        The seeds stay: choices are drawn on the host, so that no step waits for the device.
        """
        return self._replace(
            pixels=self.pixels.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            photo_ids=self.photo_ids.to(device, non_blocking=True),
        )


class ViewsDataset(Dataset[Views]):
    """Draws of the batch plan -> views."""

    def __init__(self, photos: PhotoSet, augmentation: Augmentation, *, num_views: int) -> None:
        self.photos = photos
        self.augmentation = augmentation
        self.num_views = num_views

    def __getitem__(self, draw: Draw) -> Views:
        """Return the views of a photo, or of its nearest readable successor.

        Raises LoadingError when the photo and its successors are all unreadable.
        """
        num_photos, bad = len(self.photos.names), []
        for offset in range(min(num_photos, MOST_NEIGHBOURS_TRIED)):
            photo_id = (draw.photo_id + offset) % num_photos
            seeds = self._seeds_of(draw.epoch, photo_id)
            try:
                pixels = self._views_of(photo_id, seeds)
            except PhotoError as error:
                bad.append(BadPhoto(photo_id, f"{error.code}: {error}"))
            else:
                return Views(photo_id, self.photos.labels[photo_id], pixels, seeds, tuple(bad))
        raise LoadingError(
            f"{len(bad)} photos in a row cannot be read, the first is "
            f"{self.photos.names[draw.photo_id]} ({bad[0].reason})"
        )

    def _seeds_of(self, epoch: int, photo_id: int) -> tuple[int, ...]:
        return tuple(
            seed_of(self.augmentation.seed, "view", epoch, photo_id, view)
            for view in range(self.num_views)
        )

    def _views_of(self, photo_id: int, seeds: tuple[int, ...]) -> Pixels:
        side = self.augmentation.size * DECODE_SIDES_PER_VIEW
        pixels = self.photos.pixels(photo_id, min_side=side)
        return np.stack([random_view(pixels, self.augmentation, seed=seed) for seed in seeds])


class Steps:
    """A process's draws for a range of steps, as the loader wants them: iterable, with length."""

    def __init__(self, plan: Plan, *, rank: int, start: int, stop: int) -> None:
        self.plan = plan
        self.rank = rank
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the draws of each step."""
        for step in range(self.start, self.stop):
            yield self.plan.photos_of(step, self.rank)


def batch_loader(
    dataset: ViewsDataset, steps: Steps, *, num_workers: int, pin_memory: bool
) -> Iterable[Batch]:
    """Return a loader of processes that yields a `Batch` a step; no worker changes what."""
    return DataLoader(
        dataset,
        batch_sampler=steps,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_prepare_worker,
        prefetch_factor=STEPS_AHEAD if num_workers else None,
    )


def threaded_batches(dataset: ViewsDataset, steps: Steps, *, num_threads: int) -> Iterator[Batch]:
    """Yield a `Batch` a step, its photos read ahead by threads of this process.

    Decoding and cropping let other threads run, so where the model is on the CPU too this
    spares the copies between processes and the memory of their interpreters.
    """
    per_step = max(1, len(next(iter(steps), [])))  # the same at each
    parts = (
        of_step[first : first + PHOTOS_PER_TASK]
        for of_step in steps
        for first in range(0, per_step, PHOTOS_PER_TASK)
    )
    tasks_per_step = -(-per_step // PHOTOS_PER_TASK)
    window = max(STEPS_AHEAD * tasks_per_step, num_threads)

    def load(draws: list[Draw]) -> list[Views]:
        return [dataset[draw] for draw in draws]

    loaded = in_order(load, parts, num_threads=num_threads, window=window)
    while items := [views for task in islice(loaded, tasks_per_step) for views in task]:
        yield collate(items)


def collate(items: list[Views]) -> Batch:
    """Put the views of a step's photos together, in the plan's order."""
    num_views = len(items[0].pixels)
    pixels = np.concatenate([item.pixels for item in items])
    labels = torch.tensor([item.label for item in items])
    photo_ids = torch.tensor([item.photo_id for item in items])
    return Batch(
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2),
        labels=labels.repeat_interleave(num_views),
        photo_ids=photo_ids.repeat_interleave(num_views),
        seeds=torch.tensor([seed for item in items for seed in item.seeds]),
        bad=tuple(bad for item in items for bad in item.bad),
    )


def _prepare_worker(_worker: int) -> None:
    # The main process decides when to stop and needs its workers until the step's end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
