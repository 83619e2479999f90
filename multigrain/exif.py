"""When and with what a photo was taken, as its EXIF says."""

from datetime import datetime
from typing import Any, NamedTuple

from PIL import Image
from PIL.ExifTags import IFD, Base

_EXIF_TIME = "%Y:%m:%d %H:%M:%S"
_LONGEST_TEXT = 100


class Taken(NamedTuple):
    """The camera's clock as YYYY-MM-DDTHH:MM:SS, and its make and model; None where unknown."""

    at: str | None = None
    camera: str | None = None


def taken(image: Image.Image) -> Taken:
    """What an opened photo's EXIF says; may raise what Pillow's parser raises on damaged bytes."""
    exif = image.getexif()
    if not exif:
        return Taken()
    shot = exif.get_ifd(IFD.Exif).get(Base.DateTimeOriginal)
    return Taken(_time(shot) or _time(exif.get(Base.DateTime)), _camera(exif))


def _time(value: Any) -> str | None:
    try:
        return datetime.strptime(_text(value), _EXIF_TIME).isoformat()  # noqa: DTZ007 - has no zone
    except ValueError:  # a clock that was never set: 0000:00:00
        return None


def _camera(exif: Image.Exif) -> str | None:
    """Make and model, the make once: "Canon" and "Canon EOS 5D" is "Canon EOS 5D"."""
    make, model = _text(exif.get(Base.Make)), _text(exif.get(Base.Model))
    if model.lower().startswith(make.lower()):
        return model or None
    return f"{make} {model}".strip()


def _text(value: Any) -> str:
    """A tag as text: some writers pad it with zeros or spaces, or put a number there."""
    if not isinstance(value, str):
        return ""
    return value.partition("\0")[0].strip()[:_LONGEST_TEXT]
