"""Read a cache of resized photos: parts of many photos each, mapped into memory."""

import json
import mmap
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError, open_photo
from multigrain.transforms import Pixels
from trainer.inputs.photo_set import stamp_of
from trainer.inputs.photo_sources import Source

FORMAT = 1
COMPLETE, BUILDING = "cache.json", "building.json"

Kind = Literal["jpeg", "raw"]


class CacheError(MultiGrainError):
    """A cache that is unfinished, damaged or of another make."""


class CachedPhoto(NamedTuple):
    """A row of a part's index; raw pixels are uint8 [height, width, 3]."""

    name: str
    class_name: str | None
    group: str | None
    split: str | None
    offset: int
    num_bytes: int
    height: int
    width: int
    checksum: int  # CRC-32 of a JPEG; 0 for raw pixels, where it would cost more than reading


class Part(NamedTuple):
    """A file of photos, its index, and the photos that could not be read: (name, why).

    `digest` is of what its photos were when it was written.
    """

    file: Path
    photos: tuple[CachedPhoto, ...]
    bad: tuple[tuple[str, str], ...]
    digest: str | None


class _Finished(BaseModel):
    """What a finished cache says of itself."""

    model_config = ConfigDict(strict=True)

    kind: Kind
    side: PositiveInt
    num_parts: NonNegativeInt
    class_names: Annotated[tuple[str, ...], Field(strict=False)] | None


class CacheStore:
    """The photos of a cache, in the order of its parts."""

    def __init__(self, kind: Kind, side: int, parts: tuple[Part, ...]) -> None:
        self._kind = kind
        self.side = side  # of a larger photo, what its shorter one was made; pixels
        self._parts = parts
        self._places = [(n, photo) for n, part in enumerate(parts) for photo in part.photos]
        self._maps: dict[int, mmap.mmap] = {}

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "a cache of JPEG" if self._kind == "jpeg" else "a cache of raw pixels"

    def __getstate__(self) -> tuple[Kind, int, tuple[Part, ...]]:
        """Leave the maps behind: each loading process makes its own."""
        return self._kind, self.side, self._parts

    def __setstate__(self, state: tuple[Kind, int, tuple[Part, ...]]) -> None:
        """Take up what another process sent."""
        CacheStore.__init__(self, *state)

    def image(self, item: int, *, min_side: int) -> Image.Image:
        """Decode one photo; raises PhotoError."""
        if self._kind == "raw":
            return Image.fromarray(self.pixels(item, min_side=min_side))
        number, photo = self._places[item]
        data = memoryview(self._map(number))[photo.offset : photo.offset + photo.num_bytes]
        if zlib.crc32(data) != photo.checksum:
            file = self._parts[number].file
            raise PhotoError(
                "photo_unreadable",
                f"{photo.name!r} is damaged in {file}: remove the file and run trainer.cache again",
            )
        return open_photo(bytes(data), min_side=min_side).image

    def pixels(self, item: int, *, min_side: int) -> Pixels:
        """Decode one photo; raw pixels lie in the file's own memory. Raises PhotoError."""
        if self._kind == "jpeg":
            return np.array(self.image(item, min_side=min_side))
        number, photo = self._places[item]
        found: Pixels = np.frombuffer(
            self._map(number), np.uint8, count=photo.num_bytes, offset=photo.offset
        )
        return found.reshape(photo.height, photo.width, 3)

    def stamp(self, item: int) -> str:
        """Return the place in the part, and the part's size and time of change."""
        number, photo = self._places[item]
        return f"{photo.offset} {photo.num_bytes} {stamp_of(self._parts[number].file)}"

    def _map(self, number: int) -> mmap.mmap:
        if number not in self._maps:
            try:
                with self._parts[number].file.open("rb") as file:
                    # Never written to; but torch warns of memory that could not be.
                    self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:  # ValueError: emptied since it was checked
                raise PhotoError(
                    "photo_unreadable", f"{self._parts[number].file}: {error}"
                ) from error
        return self._maps[number]


def is_cache(source: Path) -> bool:
    """Whether a folder is a cache, finished or not."""
    return (source / COMPLETE).is_file() or (source / BUILDING).is_file()


def read_cache(folder: Path) -> Source:
    """Read the index of a finished cache; raises CacheError."""
    document = read_document(folder / COMPLETE)
    if document is None:
        raise CacheError(f"{folder}: this cache is unfinished: run trainer.cache again")
    if document.get("format") != FORMAT:
        raise CacheError(f"{folder}: format {document.get('format')!r}, known is {FORMAT}")
    try:
        finished = _Finished.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise CacheError(
            f"{folder / COMPLETE}: {'.'.join(map(str, first['loc']))}: {first['msg']}: "
            "this cache is damaged, remove it and build it anew"
        ) from error
    parts = []
    for number in range(finished.num_parts):
        part = read_part(folder, number, finished.kind)
        if part is None:
            raise CacheError(
                f"{part_file(folder, number)} or its .json is missing or damaged: "
                f"run trainer.cache again, it repairs the part"
            )
        parts.append(part)
    photos = [photo for part in parts for photo in part.photos]
    if not photos:
        raise CacheError(f"{folder}: no photos in this cache")
    return Source(
        path=folder,
        store=CacheStore(finished.kind, finished.side, tuple(parts)),
        names=tuple(photo.name for photo in photos),
        classes=tuple(photo.class_name for photo in photos),
        groups=tuple(photo.group for photo in photos),
        splits=tuple(photo.split for photo in photos),
        class_names=finished.class_names,
    )


def part_file(folder: Path, number: int) -> Path:
    """Return where the photos of a part lie; its index is beside it."""
    return folder / f"part-{number:05d}.bin"


def read_part(folder: Path, number: int, kind: Kind) -> Part | None:
    """Read a part's index; None when it is absent, damaged, or not of the size of its photos."""
    file = part_file(folder, number)
    document = read_document(file.with_suffix(".json"))
    if document is None:
        return None
    try:
        photos = TypeAdapter(tuple[CachedPhoto, ...]).validate_python(document["photos"])
        bad = tuple((name, why) for name, why in document["bad"])
        whole = file.stat().st_size == sum(photo.num_bytes for photo in photos)
        whole = whole and _fit(photos, kind)
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return Part(file, photos, bad, document.get("digest")) if whole else None


def _fit(photos: tuple[CachedPhoto, ...], kind: Kind) -> bool:
    """Whether photos lie one behind the other, and raw ones are as large as their pixels."""
    end = 0
    for photo in photos:
        pixels = 3 * photo.height * photo.width
        if photo.offset != end or photo.num_bytes <= 0 or min(photo.height, photo.width) <= 0:
            return False
        if kind == "raw" and photo.num_bytes != pixels:
            return False
        end += photo.num_bytes
    return True


def read_document(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
