"""Photos with their classes, and the part of them that is kept for validation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from trainer.inputs.cache_reader import is_cache, read_cache
from trainer.inputs.manifest import TRAIN, VAL, is_manifest, read_manifest
from trainer.inputs.photo_set import FileStore, PhotoSet
from trainer.inputs.photo_sources import Joined, LabelsError, Say, Source, few, join
from trainer.inputs.photos import find_photos
from trainer.inputs.tar_shards import is_tar, read_tar

__all__ = [
    "LabelsError", "PhotoSet", "read_joined", "read_photo_set", "read_photos", "split_by_hash",
    "split_by_source", "with_classes_of",
]  # fmt: skip

# The sub-folders of a data set that is divided already; as classes they would be nonsense.
_FOLDERS_OF_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))


def read_photos(sources: Sequence[Path], *, say: Say) -> PhotoSet:
    """Read all photos of folders, manifests, tar shards and caches; classes join by name.

    Raises PhotoListError, LabelsError, TarError and CacheError, naming the source.
    """
    return read_joined(sources, say=say).photos


def read_photo_set(folder: Path, *, say: Say) -> PhotoSet:
    """Read all photos of one source."""
    return read_photos([folder], say=say)


def read_joined(sources: Sequence[Path], *, say: Say) -> Joined:
    """Read photos with the split that their source says of them."""
    return join([_read(source, say) for source in sources], say=say)


def _read(source: Path, say: Say) -> Source:
    if is_manifest(source):
        return read_manifest(source, say=say)
    if is_cache(source):
        return read_cache(source)
    if is_tar(source):
        return read_tar(source, say=say)
    return _read_folder(source)


def _read_folder(folder: Path) -> Source:
    """Read a folder whose sub-folders are classes, or one without classes.

    A class is the first folder of a path, however deep the photo lies; a folder with photos
    beside its sub-folders has no classes.
    """
    names = tuple(find_photos(folder))
    classes = tuple(name.split("/", 1)[0] if "/" in name else None for name in names)
    num_loose, why = classes.count(None), None
    if num_loose and num_loose < len(names):
        why = f"{num_loose} photos lie beside the sub-folders"
        classes = (None,) * len(names)
    found = set(classes)
    if "train" in found and len(found) > 1 and found <= _FOLDERS_OF_SPLITS:
        raise LabelsError(
            f"{folder}: the sub-folders {few(sorted(map(str, found)))} look like parts of a data "
            f"set, not like classes: give --data {folder / 'train'} and --val the other"
        )
    nothing = (None,) * len(names)
    return Source(folder, FileStore(folder, names), names, classes, nothing, nothing, why)


def split_by_source(joined: Joined, *, say: Say) -> tuple[PhotoSet, PhotoSet] | None:
    """Split as the sources say: (training, validation); None where none of them says it.

    Photos of a source without splits are trained on; what is neither train nor val is left
    out, and said. Raises LabelsError when no photo is left to train on.
    """
    if not any(joined.splits):
        return None
    sides: dict[str, list[int]] = {TRAIN: [], VAL: []}
    others: dict[str, int] = {}
    for photo_id, split in enumerate(joined.splits):
        if (split or TRAIN) in sides:
            sides[split or TRAIN].append(photo_id)
        else:
            others[str(split)] = others.get(str(split), 0) + 1
    for name, count in others.items():
        say(f"{count} photos of the split {name!r} are left out")
    if not sides[TRAIN]:
        raise LabelsError(f"{joined.photos.root}: no photo's split is {TRAIN}")
    return joined.photos.pick(sides[TRAIN]), joined.photos.pick(sides[VAL])


def split_by_hash(photos: PhotoSet, fraction: float) -> tuple[PhotoSet, PhotoSet]:
    """Split off about `fraction` of the photos for validation: (training, validation).

    A photo's side is a hash of its name, so it stays when others come and go; photos of one
    group share a side. With two photos or groups and a fraction above 0 both sides have one.
    """
    if fraction == 0 or len(photos.names) == 1:
        return photos, photos.pick(())
    groups = photos.groups or (None,) * len(photos.names)
    keys = [
        f"group\0{group}" if group is not None else name
        for name, group in zip(photos.names, groups, strict=True)
    ]
    places = [_place(key) for key in keys]
    # The extreme places keep both sides from being empty in a small folder.
    in_order = sorted(set(places))
    threshold = min(max(fraction, in_order[0]), in_order[max(0, len(in_order) - 2)])
    kept = [photo_id for photo_id, place in enumerate(places) if place > threshold]
    held = [photo_id for photo_id, place in enumerate(places) if place <= threshold]
    if not kept:  # a single group
        return photos, photos.pick(())
    return photos.pick(kept), photos.pick(held)


def with_classes_of(validation: PhotoSet, training: PhotoSet) -> PhotoSet:
    """Return a validation folder's photos with the labels that training gives its classes."""
    if training.class_names is None:
        return validation._replace(labels=(0,) * len(validation.names), class_names=None)
    if validation.class_names is None:
        raise LabelsError(f"{validation.root}: training has classes, these photos have none")
    places = {name: place for place, name in enumerate(training.class_names)}
    unknown = sorted(set(validation.class_names) - places.keys())
    if unknown:
        raise LabelsError(f"{validation.root}: classes unknown to training: {few(unknown)}")
    labels = tuple(places[validation.class_names[label]] for label in validation.labels)
    return validation._replace(labels=labels, class_names=training.class_names)


def _place(name: str) -> float:
    """Return a hash of a name, in [0, 1)."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
