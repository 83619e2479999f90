"""Photos in tar shards, read at random through an index of offsets that is made once.

A member `class/name.jpg` has the class of its first folder; beside `key.cls` (webdataset) it has
the class written there. Nothing is ever unpacked.
"""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError, open_photo
from multigrain.photo_list import PhotoListError
from multigrain.progress import Progress
from multigrain.transforms import Pixels
from trainer.inputs.photo_set import stamp_of
from trainer.inputs.photo_sources import LabelsError, Say, Source
from trainer.inputs.photos import NUM_MAGIC_BYTES, any_photo, has_photo_suffix, starts_like_photo
from trainer.inputs.tar_index import Member, Shard, ShardIndexes

_LONGEST_CLASS = 1024  # bytes of a .cls member


class TarError(MultiGrainError):
    """Shards that cannot be read."""


class TarStore(NamedTuple):
    """Photos at known places of tar files."""

    shards: tuple[Path, ...]
    names: tuple[str, ...]
    places: npt.NDArray[np.int64]  # [photos, 3]: shard, offset, bytes

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "tar shards"

    def image(self, item: int, *, min_side: int) -> Image.Image:
        """Decode one photo; raises PhotoError."""
        shard, offset, num_bytes = self.places[item].tolist()
        path = self.shards[shard]
        try:
            # Opened for each photo: a thousand shards would be too many open files.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(descriptor, num_bytes, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PhotoError("photo_unreadable", f"cannot read {path}: {error}") from error
        if len(data) < num_bytes:
            raise PhotoError("photo_unreadable", f"{path} ends within {self.names[item]!r}")
        return open_photo(data, min_side=min_side).image

    def pixels(self, item: int, *, min_side: int) -> Pixels:
        """Decode one photo; raises PhotoError."""
        return np.array(self.image(item, min_side=min_side))

    def stamp(self, item: int) -> str:
        """Return the place in the shard, and the shard's size and time of change."""
        shard, offset, num_bytes = self.places[item].tolist()
        return f"{offset} {num_bytes} {stamp_of(self.shards[shard])}"


def is_tar(source: Path) -> bool:
    """Whether a source is a tar file, or a folder with tar files right below it."""
    return source.suffix.lower() == ".tar" or any(_tars_in(source))


def read_tar(source: Path, *, say: Say, cache_dir: Path | None = None) -> Source:
    """Find the photos of a tar file, or of all tar files of a folder.

    The offsets are kept in `cache_dir` (default: the user's cache), each shard's by its path,
    size and time of change. Raises TarError for a shard that is damaged or compressed,
    LabelsError for photos beside the shards, and PhotoListError without photos.
    """
    shards = tuple(_tars_in(source)) or (source,)
    _refuse_photos_beside(source, shards)
    indexes, num_skipped = ShardIndexes(cache_dir), 0
    progress = Progress(len(shards), "shards")
    names: list[str] = []
    classes: list[str | None] = []
    places: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        title = f"{shard.name}/" if len(shards) > 1 else ""
        found = _photos_of(shard, indexes)
        num_skipped += found.num_skipped
        for member in found.members:
            names.append(title + member.name)
            classes.append(member.class_name)
            places.append((number, member.offset, member.num_bytes))
        progress.update(number + 1)
    if indexes.num_made:
        progress.close()
    if not names:
        raise PhotoListError(f"no photos in {source}")
    skipped = f", {num_skipped} members are no photos or of an older state" if num_skipped else ""
    say(f"{source}: {len(shards)} tar shards, {indexes.num_made} of them indexed now{skipped}")
    if indexes.why_unwritten:
        say(f"{indexes.why_unwritten}: the next run indexes the shards again")
    store = TarStore(shards, tuple(names), np.array(places, np.int64))
    nothing = (None,) * len(names)
    return Source(source, store, tuple(names), tuple(classes), nothing, nothing)


def _tars_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".tar" and not path.name.startswith(".") and path.is_file():
            yield path


def _refuse_photos_beside(folder: Path, shards: tuple[Path, ...]) -> None:
    """Raise LabelsError for a folder of shards that holds photos too: they would be left out."""
    beside = any_photo(folder) if folder.is_dir() else None
    if beside is not None:
        raise LabelsError(
            f"{folder}: holds tar shards ({shards[0].name}) and photos outside of them "
            f"({beside.relative_to(folder)}): give each a folder of its own, and --data twice"
        )


def _photos_of(shard: Path, indexes: ShardIndexes) -> Shard:
    try:
        return indexes.of(shard, make=_scan)
    except (OSError, tarfile.TarError) as error:
        raise TarError(
            f"{shard}: cannot be read as a plain tar file ({error}); a compressed one must be "
            f"unpacked, its photos cannot be reached at random"
        ) from error


def _scan(shard: Path) -> Shard:
    """Read the headers of a tar file; raises OSError and tarfile.TarError."""
    places: dict[str, tuple[int, int]] = {}  # of files by name, where a hard link finds them
    photos: dict[str, Member] = {}
    classes: dict[str, str] = {}
    num_files = 0
    with tarfile.open(shard, "r:") as tar, shard.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for member in tar:
            name = _name(member.name)
            photos.pop(name, None)  # the last of a name counts, as when it is unpacked
            place = _place(member, places)
            if place is not None:
                places[name] = place
            if member.isdir() or posixpath.basename(name).startswith("."):
                continue
            num_files += 1
            if place is None:
                continue
            if sum(place) > size:
                raise tarfile.ReadError(f"it ends within {member.name!r}")
            if name.endswith(".cls") and place[1] <= _LONGEST_CLASS:
                num_files -= 1
                content = os.pread(file.fileno(), place[1], place[0])
                classes[_key(name)] = content.decode("utf-8", "surrogateescape").strip()
            elif _is_photo(name, place, file.fileno()):
                top = name.split("/", 1)[0] if "/" in name else None
                photos[name] = Member(name, *place, top)
    members = [
        member._replace(class_name=classes.get(_key(name), member.class_name))
        for name, member in photos.items()
    ]
    return Shard(members, num_files - len(members))


def _name(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _key(name: str) -> str:
    """Return what a photo's members share: the name up to the first dot of its last part."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])


def _place(member: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Return where a member's bytes lie, and how many; None where they are not in one piece."""
    if member.islnk():
        return places.get(_name(member.linkname))
    plain = member.isfile() and not member.issparse()
    return (member.offset_data, member.size) if plain else None


def _is_photo(name: str, place: tuple[int, int], descriptor: int) -> bool:
    """Judge as in folders: by name first, then by the first bytes."""
    if has_photo_suffix(name):
        return True
    return starts_like_photo(os.pread(descriptor, min(NUM_MAGIC_BYTES, place[1]), place[0]))
