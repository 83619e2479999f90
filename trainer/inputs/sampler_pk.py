"""P classes x K photos by counting: the photos of step s are a pure function of (seed, s).

G groups of a process: K photos of one class each, N views of every photo.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.inputs.sampler import (
    BatchPlan,
    Draw,
    Numbers,
    Permutations,
    draws_of,
    most_in_a_row,
)
from trainer.seeds import seed_of

# Sebastiano Vigna's splitmix64: its increment and the multipliers of its finaliser.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


class PkPlan(BatchPlan):
    """Batches of P classes with K photos each, every class equally often.

    The groups of all steps form one endless list of permutations of the classes: round number
    `q // num_classes`. A step takes the next P groups, a process a contiguous slice of whole
    groups. In its r-th round a class gives its next K photos: it goes through a permutation of
    its photos in `ceil(photos / K)` groups, the last of which is filled up from the
    permutation's beginning, and then takes another permutation. So every photo of a class is
    drawn at least once in `ceil(photos / K)` rounds in a row that begin with a permutation, no
    group holds a photo twice unless its class has fewer than K, and every draw has an epoch of
    its own, hence views of its own. Nothing is padded; a pass over the photos (an epoch) is as
    many draws as there are photos.
    """

    def __init__(
        self,
        *,
        labels: Sequence[int],
        photos_per_class: int,
        batch_size: int,
        num_views: int,
        num_processes: int,
        seed: int,
        num_parts: int = 1,
    ) -> None:
        super().__init__(
            num_photos=len(labels),
            batch_size=batch_size,
            num_views=num_views,
            num_processes=num_processes,
            seed=seed,
            photos_per_group=photos_per_class,
            num_parts=num_parts,
        )
        self.photos_per_class = photos_per_class
        by_class = np.asarray(labels, dtype=np.int64)
        self._photos = np.argsort(by_class, kind="stable")
        _, self._first, self._count = np.unique(
            by_class[self._photos], return_index=True, return_counts=True
        )
        self._rounds = -(-self._count // photos_per_class)  # groups that go through a class
        self._laps = -(-(self._rounds * photos_per_class) // self._count)
        self._class_orders = Permutations(len(self._count), seed=seed, name="classes")
        self._seed_of_photos = np.uint64(seed_of(seed, "photos of classes"))
        # Of each class the number of its newest permutation, and the permutation: in all as
        # many numbers as there are photos, and a class with many photos sorts them rarely.
        self._recent: dict[int, tuple[int, Numbers]] = {}

    @property
    def most_occurrences(self) -> int:
        """How often one photo can occur in a step."""
        return self._most_groups * -(-self.photos_per_class // int(self._count.min()))

    @property
    def description(self) -> str:
        """One line for the log: what a step holds, and how many classes there are."""
        groups_per_step = self.photos_per_step // self.photos_per_class
        return (
            f"{groups_per_step} classes (of {len(self._count)}) x {self.photos_per_class} photos "
            f"x {self.num_views} views"
        )

    def most_of_a_class(self, *, largest: int) -> int:  # noqa: ARG002 - every class gives alike
        """How many photos of a step can be of one class."""
        return self._most_groups * self.photos_per_class

    @property
    def _most_groups(self) -> int:
        groups_per_step = self.photos_per_step // self.photos_per_class
        return most_in_a_row(groups_per_step, period=len(self._count))

    def photos_of(self, step: int, rank: int) -> list[Draw]:
        """Return the photos a process sees at a step, the K of a class side by side."""
        size = self.photos_per_class
        first = (step * self.photos_per_step + rank * self.photos_per_process) // size
        positions = np.arange(first, first + self.photos_per_process // size)
        rounds, places = np.divmod(positions, len(self._count))
        classes = self._class_orders.at(rounds, places)
        cycles, groups = np.divmod(rounds, self._rounds[classes])
        walked = groups[:, None] * size + np.arange(size)
        laps, places = np.divmod(walked, self._count[classes][:, None])
        epochs = cycles[:, None] * self._laps[classes][:, None] + laps
        return draws_of(epochs.ravel(), self._photos_at(classes, cycles, places).ravel())

    def _photos_at(self, classes: Numbers, cycles: Numbers, places: Numbers) -> Numbers:
        """Classes and numbers of their permutations [G], places [G, K] in them -> photos."""
        wanted = list(zip(classes.tolist(), cycles.tolist(), strict=True))
        missing = sorted({pair for pair in wanted if not self._has(*pair)})
        # A step that goes through a small class more than once needs several of its
        # permutations, of which the newest stays.
        found = {pair: self._recent[pair[0]][1] for pair in wanted if self._has(*pair)}
        if missing:
            made = self._permutations(np.array(missing))
            found |= dict(zip(missing, made, strict=True))
            self._recent |= {pair[0]: (pair[1], found[pair]) for pair in missing}
        return np.stack([found[pair][row] for pair, row in zip(wanted, places, strict=True)])

    def _has(self, class_: int, cycle: int) -> bool:
        recent = self._recent.get(class_)
        return recent is not None and recent[0] == cycle

    def _permutations(self, pairs: Numbers) -> list[Numbers]:
        """Classes and numbers of permutations [M, 2] -> the permuted photos of each.

        Photos are sorted by a hash of (seed, class, number, place): for many small classes a
        generator each would cost more than the rest of the step.
        """
        counts = self._count[pairs[:, 0]]
        ends = counts.cumsum()
        owner = np.repeat(np.arange(len(pairs)), counts)
        place = np.arange(ends[-1]) - (ends - counts)[owner]
        stream = _mixed(_mixed(pairs[:, 0], self._seed_of_photos), _mixed(pairs[:, 1], GOLDEN))
        order = np.lexsort((_mixed(place, stream[owner]), owner))
        photos = self._photos[self._first[pairs[owner, 0]] + place[order]]
        return np.split(photos, ends[:-1])


def _mixed(
    numbers: npt.NDArray[np.int64] | npt.NDArray[np.uint64],
    stream: npt.NDArray[np.uint64] | np.uint64,
) -> npt.NDArray[np.uint64]:
    """Hash of each number and its stream: splitmix64's output at that place of the stream."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN + stream
    mixed = (mixed ^ (mixed >> np.uint64(30))) * FIRST_FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(27))) * SECOND_FACTOR
    return mixed ^ (mixed >> np.uint64(31))
