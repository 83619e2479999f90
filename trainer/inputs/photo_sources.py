"""What one `--data` gives: photos with the class, group and split that it says of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain.errors import MultiGrainError
from multigrain.photo_list import is_utf8
from trainer.inputs.photo_set import PhotoSet, PhotoStore

FEWEST_CLASSES = 2
MOST_NAMED = 3

Say = Callable[[str], None]
Column = tuple[str | None, ...]


class LabelsError(MultiGrainError):
    """Photos whose classes, groups or splits do not serve."""


class Source(NamedTuple):
    """Photos of one folder, list, cache or set of shards; the columns are as long as `names`.

    `why_unlabelled` says why a photo has no class, for whoever wonders. `class_names` is the
    order of classes where the source has one.
    """

    path: Path
    store: PhotoStore
    names: tuple[str, ...]
    classes: Column
    groups: Column
    splits: Column
    why_unlabelled: str | None = None
    class_names: tuple[str, ...] | None = None


class Joined(NamedTuple):
    """The photos of several sources, and each one's split where a source says it."""

    photos: PhotoSet
    splits: Column


def join(sources: Sequence[Source], *, say: Say) -> Joined:
    """Put sources together; equal names of classes are one class.

    Photos have classes when every one of them has, and there are two classes; `say` is told
    otherwise. With several sources a photo's name begins with its source's.
    Raises LabelsError without a source, and for a class whose name is not UTF-8: no checkpoint
    could hold it.
    """
    if not sources:
        raise LabelsError("no photos are given: name a folder, manifest, tar file or cache")
    classes = [name for source in sources for name in source.classes]
    class_names = _class_names(sources, classes, say)
    number = {name: place for place, name in enumerate(class_names or ())}
    titles = _titles(sources)
    titled = list(zip(sources, titles, strict=True))
    names = [title + name for source, title in titled for name in source.names]
    groups = [
        None if group is None else title + group
        for source, title in titled
        for group in source.groups
    ]
    places = [
        np.stack([np.full(len(source.names), place), np.arange(len(source.names))], axis=1)
        for place, source in enumerate(sources)
    ]
    photos = PhotoSet(
        root=sources[0].path,
        names=tuple(names),
        labels=tuple(number.get(name or "", 0) for name in classes),
        class_names=class_names,
        stores=tuple(source.store for source in sources),
        places=np.concatenate(places).astype(np.int64),
        groups=tuple(groups) if any(group is not None for group in groups) else None,
    )
    return Joined(photos, tuple(split for source in sources for split in source.splits))


def in_class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Sort names of classes: numbers by value, so that class 2 comes before class 10."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() and str(int(name)) == name for name in unique):
        return tuple(sorted(unique, key=int))
    return tuple(sorted(unique))


def few(names: Sequence[str]) -> str:
    """Write the first few of many names."""
    rest = len(names) - MOST_NAMED
    return ", ".join(map(repr, names[:MOST_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _class_names(
    sources: Sequence[Source], classes: Sequence[str | None], say: Say
) -> tuple[str, ...] | None:
    found = [name for name in classes if name is not None]
    if len(found) < len(classes):
        for source in sources:
            count = source.classes.count(None)
            reason = source.why_unlabelled
            if found and count:
                reason = reason or f"{count} of {len(source.classes)} photos have no class"
            if reason:
                say(f"{source.path}: {reason}, so there are no classes")
        return None
    names = in_class_order(found)
    if len(sources) == 1 and sources[0].class_names is not None:
        names = sources[0].class_names
    if len(names) < FEWEST_CLASSES:
        say(f"{sources[0].path}: a single class, {names[0]!r}, is no classes")
        return None
    for source in sources:
        for name in dict.fromkeys(source.classes):
            if not is_utf8(name or ""):
                raise LabelsError(
                    f"{source.path}: the name of the class {name!r} is not UTF-8: rename it"
                )
    return names


def _titles(sources: Sequence[Source]) -> list[str]:
    """Return what the names of each source's photos begin with; nothing for a single source."""
    if len(sources) == 1:
        return [""]
    titles = [source.path.name or "photos" for source in sources]
    counts, seen = Counter(titles), Counter[str]()
    for place, title in enumerate(titles):
        seen[title] += 1
        titles[place] = f"{title}:{seen[title]}/" if counts[title] > 1 else f"{title}/"
    return titles
