"""Photos by number: their names, classes and groups, and where their pixels come from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from multigrain.photo import open_photo
from multigrain.transforms import Pixels


def stamp_of(file: Path) -> str:
    """Return a file's size and time of change; empty when it cannot be asked."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


class PhotoStore(Protocol):
    """Where photos lie: files, tar shards, a cache. Loading processes get a copy each."""

    @property
    def kind(self) -> str:
        """What it is, for messages."""

    def image(self, item: int, *, min_side: int) -> Image.Image:
        """Decode one photo: upright RGB, its shorter side at least `min_side` where it has that.

        Raises PhotoError.
        """

    def pixels(self, item: int, *, min_side: int) -> Pixels:
        """Return the same as uint8 [height, width, 3], not to be written to."""

    def stamp(self, item: int) -> str:
        """Return what changes when the photo's bytes do; empty when there is no file."""


class FileStore(NamedTuple):
    """Photos that are files of their own."""

    root: Path
    names: tuple[str, ...]  # relative to root, or absolute

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "files"

    def image(self, item: int, *, min_side: int) -> Image.Image:
        """Decode one photo; raises PhotoError."""
        return open_photo(self.root / self.names[item], min_side=min_side).image

    def pixels(self, item: int, *, min_side: int) -> Pixels:
        """Decode one photo; raises PhotoError."""
        return np.array(self.image(item, min_side=min_side))

    def stamp(self, item: int) -> str:
        """Return the file's size and time of change."""
        return stamp_of(self.root / self.names[item])


class PhotoSet(NamedTuple):
    """Photos of one or several sources; a photo's id is its place in `names`."""

    root: Path  # the first source, for messages
    names: tuple[str, ...]
    labels: tuple[int, ...]  # places in class_names; all 0 without classes
    class_names: tuple[str, ...] | None
    stores: tuple[PhotoStore, ...]
    places: npt.NDArray[np.int64]  # [photos, 2]: which store, and the number therein
    groups: tuple[str | None, ...] | None = None  # photos of one thing, if that is known

    @classmethod
    def of_files(
        cls,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "PhotoSet":
        """Return photos below a folder, in the order given."""
        store = FileStore(root, tuple(names))
        places = np.stack([np.zeros(len(names), np.int64), np.arange(len(names))], axis=1)
        classes = None if class_names is None else tuple(class_names)
        return cls(root, store.names, tuple(labels or (0,) * len(names)), classes, (store,), places)

    @classmethod
    def of_paths(cls, paths: Sequence[Path]) -> "PhotoSet":
        """Return photos from anywhere, without classes."""
        return cls.of_files(Path(), [str(path) for path in paths])

    def image(self, photo_id: int, *, min_side: int) -> Image.Image:
        """Decode one photo: upright RGB, its shorter side at least `min_side` where it has that.

        Raises PhotoError.
        """
        store, item = (int(place) for place in self.places[photo_id])
        return self.stores[store].image(item, min_side=min_side)

    def pixels(self, photo_id: int, *, min_side: int) -> Pixels:
        """Decode one photo to uint8 [height, width, 3], not to be written to.

        Raises PhotoError.
        """
        store, item = (int(place) for place in self.places[photo_id])
        return self.stores[store].pixels(item, min_side=min_side)

    def stamp(self, photo_id: int) -> str:
        """Return what changes when the photo's bytes do."""
        store, item = (int(place) for place in self.places[photo_id])
        return self.stores[store].stamp(item)

    def digest(self) -> str:
        """Hex SHA-256 of names and classes: equal when ids mean the same photos."""
        text = repr((self.names, self.labels, self.class_names))
        return hashlib.sha256(text.encode()).hexdigest()

    def pick(self, photo_ids: Sequence[int]) -> "PhotoSet":
        """Return the set of the given photos, with the same classes."""
        groups = self.groups
        return self._replace(
            names=tuple(self.names[photo_id] for photo_id in photo_ids),
            labels=tuple(self.labels[photo_id] for photo_id in photo_ids),
            places=self.places[np.asarray(photo_ids, np.int64)],
            groups=None if groups is None else tuple(groups[photo_id] for photo_id in photo_ids),
        )
