"""Repeated augmentation by counting: the photos of step s are a pure function of (seed, s)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError
from trainer.seeds import seed_of

Numbers = npt.NDArray[np.int64]


class SamplerError(MultiGrainError):
    """Batch settings that do not divide, or photos that a plan cannot batch."""


class Draw(NamedTuple):
    """One photo of a batch and which time it comes; no two draws of a run are equal."""

    epoch: int
    photo_id: int


class BatchPlan:
    """Which photos each process sees at each step.

    The photos of all steps form one endless list of permutations, `q` counting along it:
    permutation number `q // num_photos`. A step takes the next `batch_size / num_views`
    photos, a process a contiguous slice of them, and all views of a photo stay together.
    Nothing is padded or lost, a run goes on at any step, and with another number of processes
    the global batches stay the same.

    A process's slice is made of whole groups of `photos_per_group` photos, and so is each of
    the `num_parts` micro-batches that a process may cut it into.
    """

    def __init__(
        self,
        *,
        num_photos: int,
        batch_size: int,
        num_views: int,
        num_processes: int,
        seed: int,
        photos_per_group: int = 1,
        num_parts: int = 1,
    ) -> None:
        if num_photos < 1:
            raise SamplerError("there are no photos to train on")
        step = num_processes * num_views * photos_per_group * num_parts
        if batch_size % step != 0:
            nearest = max(1, round(batch_size / step)) * step
            of_a_class = f" x {photos_per_group} photos of a class" if photos_per_group > 1 else ""
            in_parts = f" x {num_parts} micro-batches" if num_parts > 1 else ""
            raise SamplerError(
                f"batch size {batch_size} is not a multiple of {num_views} views{of_a_class} x "
                f"{num_processes} processes{in_parts}: take {nearest}"
            )
        self.num_photos = num_photos
        self.num_views = num_views
        self.photos_per_step = batch_size // num_views
        self.photos_per_process = self.photos_per_step // num_processes
        self.seed = seed
        self._orders = Permutations(num_photos, seed=seed, name="order")

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which as many photos are drawn as there are; need not be whole."""
        return self.num_photos / self.photos_per_step

    @property
    def most_occurrences(self) -> int:
        """How often one photo can occur in a step: more than once where two passes meet."""
        return most_in_a_row(self.photos_per_step, period=self.num_photos)

    @property
    def description(self) -> str:
        """One line for the log: what a step holds."""
        return f"repeated augmentation, {self.photos_per_step} photos x {self.num_views} views"

    def most_of_a_class(self, *, largest: int) -> int:
        """How many photos of a step can be of one class, when the largest class has `largest`."""
        return min(self.photos_per_step, largest * self.most_occurrences)

    def photos_of(self, step: int, rank: int) -> list[Draw]:
        """Return the photos a process sees at a step, in order."""
        first = step * self.photos_per_step + rank * self.photos_per_process
        positions = np.arange(first, first + self.photos_per_process)
        epochs, places = np.divmod(positions, self.num_photos)
        return draws_of(epochs, self._orders.at(epochs, places))

    def steps(self, rank: int, *, start: int, stop: int) -> Iterator[list[Draw]]:
        """Yield one process's photos for the steps start .. stop - 1."""
        for step in range(start, stop):
            yield self.photos_of(step, rank)


class Permutations:
    """An endless row of permutations of `num_items`, each a function of its number."""

    def __init__(self, num_items: int, *, seed: int, name: str) -> None:
        self.num_items = num_items
        self.seed = seed
        self.name = name
        self._recent: dict[int, Numbers] = {}

    def at(self, numbers: Numbers, places: Numbers) -> Numbers:
        """Return the item at each place of the permutation of each number, which ascend."""
        items = np.empty_like(places)
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            items[chosen] = self._permutation(number)[places[chosen]]
        return items

    def _permutation(self, number: int) -> Numbers:
        if number not in self._recent:
            if len(self._recent) > 1:  # a step may span two, and a new pass follows an old one
                del self._recent[min(self._recent)]
            rng = np.random.default_rng(seed_of(self.seed, self.name, number))
            self._recent[number] = rng.permutation(self.num_items)
        return self._recent[number]


def draws_of(epochs: Numbers, photo_ids: Numbers) -> list[Draw]:
    """Pair epochs and photos as plain numbers, which loading processes take at less cost."""
    return list(map(Draw._make, zip(epochs.tolist(), photo_ids.tolist(), strict=True)))


def most_in_a_row(num_places: int, *, period: int) -> int:
    """How often an item can occur in `num_places` neighbouring places of such a row."""
    return -(-(num_places - 1) // period) + 1
