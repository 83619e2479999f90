"""Photos with their classes, and the part of them that is kept for validation."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from multigrain.errors import MultiGrainError
from multigrain.photo import open_photo
from multigrain.photo_list import is_utf8
from trainer.photos import find_photos

FEWEST_CLASSES = 2


class LabelsError(MultiGrainError):
    """Photos whose classes do not serve."""


class PhotoSet(NamedTuple):
    """Photos of one folder; a photo's id is its place in `names`."""

    root: Path
    names: tuple[str, ...]  # relative to root, sorted
    labels: tuple[int, ...]  # places in class_names; all 0 without classes
    class_names: tuple[str, ...] | None

    def path(self, photo_id: int) -> Path:
        """Where the photo lies."""
        return self.root / self.names[photo_id]

    @classmethod
    def of_paths(cls, paths: Sequence[Path]) -> "PhotoSet":
        """Return photos from anywhere, without classes."""
        names = tuple(str(path) for path in paths)
        return cls(Path(), names, (0,) * len(names), None)

    def image(self, photo_id: int, *, min_side: int) -> Image.Image:
        """Decode one photo: upright RGB, its shorter side at least `min_side` where it has that.

        Raises PhotoError.
        """
        return open_photo(self.path(photo_id), min_side=min_side).image

    def digest(self) -> str:
        """Hex SHA-256 of names and classes: equal when ids mean the same photos."""
        text = repr((self.names, self.labels, self.class_names))
        return hashlib.sha256(text.encode()).hexdigest()

    def pick(self, photo_ids: Sequence[int]) -> "PhotoSet":
        """Return the set of the given photos, with the same classes."""
        return self._replace(
            names=tuple(self.names[photo_id] for photo_id in photo_ids),
            labels=tuple(self.labels[photo_id] for photo_id in photo_ids),
        )


def read_photo_set(folder: Path, *, say: Callable[[str], None]) -> PhotoSet:
    """Read a folder whose sub-folders are classes, or one without classes.

    A folder with photos beside its sub-folders, or with a single sub-folder, has no classes;
    `say` is told so. A class is the first folder of a path, however deep the photo lies.
    Raises LabelsError for a class whose name is not UTF-8: no checkpoint could hold it.
    """
    names = tuple(find_photos(folder))
    tops = [name.split("/", 1)[0] if "/" in name else None for name in names]
    classes = tuple(sorted({top for top in tops if top is not None}))
    num_loose = tops.count(None)
    if classes and num_loose:
        say(f"{folder}: {num_loose} photos lie beside the sub-folders, so there are no classes")
    elif 0 < len(classes) < FEWEST_CLASSES:
        say(f"{folder}: a single sub-folder is no classes")
    if num_loose or len(classes) < FEWEST_CLASSES:
        return PhotoSet(folder, names, (0,) * len(names), None)
    unwritable = [name for name in classes if not is_utf8(name)]
    if unwritable:
        raise LabelsError(
            f"{folder}: the name of the class folder {unwritable[0]!r} is not UTF-8: rename it"
        )
    places = {name: place for place, name in enumerate(classes)}
    return PhotoSet(folder, names, tuple(places[top] for top in tops if top is not None), classes)


def split_by_hash(photos: PhotoSet, fraction: float) -> tuple[PhotoSet, PhotoSet]:
    """Split off about `fraction` of the photos for validation: (training, validation).

    A photo's side is a hash of its name, so it stays when others come and go. With two photos
    or more and a fraction above 0 both sides have at least one.
    """
    if fraction == 0 or len(photos.names) == 1:
        return photos, photos.pick(())
    places = [_place(name) for name in photos.names]
    # The extreme places keep both sides from being empty in a small folder.
    threshold = min(max(fraction, min(places)), sorted(places)[-2])
    kept = [photo_id for photo_id, place in enumerate(places) if place > threshold]
    held = [photo_id for photo_id, place in enumerate(places) if place <= threshold]
    return photos.pick(kept), photos.pick(held)


def with_classes_of(validation: PhotoSet, training: PhotoSet) -> PhotoSet:
    """Return a validation folder's photos with the labels that training gives its classes."""
    if training.class_names is None:
        return validation._replace(labels=(0,) * len(validation.names), class_names=None)
    if validation.class_names is None:
        raise LabelsError(f"{validation.root}: training has classes, these photos have none")
    unknown = sorted(set(validation.class_names) - set(training.class_names))
    if unknown:
        raise LabelsError(f"{validation.root}: classes unknown to training: {unknown[:5]}")
    place = [training.class_names.index(name) for name in validation.class_names]
    labels = tuple(place[label] for label in validation.labels)
    return validation._replace(labels=labels, class_names=training.class_names)


def _place(name: str) -> float:
    """Return a hash of a name, in [0, 1)."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
