"""Repeated augmentation by counting: the photos of step s are a pure function of (seed, s)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError
from trainer.seeds import seed_of


class SamplerError(MultiGrainError):
    """Batch settings that do not divide."""


class Draw(NamedTuple):
    """One photo of a batch: the pass over the photos it belongs to, and its number."""

    epoch: int
    photo_id: int


class BatchPlan:
    """Which photos each process sees at each step.

    The photos of all steps form one endless list of permutations, `q` counting along it:
    permutation number `q // num_photos`. A step takes the next `batch_size / num_views`
    photos, a process a contiguous slice of them, and all views of a photo stay together.
    Nothing is padded or lost, a run goes on at any step, and with another number of processes
    the global batches stay the same.
    """

    def __init__(
        self,
        *,
        num_photos: int,
        batch_size: int,
        num_views: int,
        num_processes: int,
        seed: int,
    ) -> None:
        if num_photos < 1:
            raise SamplerError("there are no photos to train on")
        if batch_size % (num_processes * num_views) != 0:
            step = num_processes * num_views
            nearest = max(1, round(batch_size / step)) * step
            raise SamplerError(
                f"batch size {batch_size} is not a multiple of {num_views} views x "
                f"{num_processes} processes: take {nearest}"
            )
        self.num_photos = num_photos
        self.photos_per_step = batch_size // num_views
        self.photos_per_process = self.photos_per_step // num_processes
        self.seed = seed
        self._recent: dict[int, npt.NDArray[np.int64]] = {}

    @property
    def most_occurrences(self) -> int:
        """How often one photo can occur in a step: more than once where two passes meet."""
        return -(-(self.photos_per_step - 1) // self.num_photos) + 1

    def photos_of(self, step: int, rank: int) -> list[Draw]:
        """Return the photos a process sees at a step, in order."""
        first = step * self.photos_per_step + rank * self.photos_per_process
        return [self._at(position) for position in range(first, first + self.photos_per_process)]

    def steps(self, rank: int, *, start: int, stop: int) -> Iterator[list[Draw]]:
        """Yield one process's photos for the steps start .. stop - 1."""
        for step in range(start, stop):
            yield self.photos_of(step, rank)

    def _at(self, position: int) -> Draw:
        epoch, place = divmod(position, self.num_photos)
        return Draw(epoch, int(self._permutation(epoch)[place]))

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._recent:
            if len(self._recent) > 1:  # a step spans two passes, or is larger than the folder
                del self._recent[min(self._recent)]
            rng = np.random.default_rng(seed_of(self.seed, "order", epoch))
            self._recent[epoch] = rng.permutation(self.num_photos)
        return self._recent[epoch]
