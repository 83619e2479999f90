"""A photo on its way to the model: decoded and prepared where no model is open."""

from pathlib import Path
from typing import NamedTuple

from multigrain.exif import Taken
from multigrain.photo import Photo, open_photo
from multigrain.photo_limits import DEFAULT_LIMITS, PhotoLimits
from multigrain.transforms import Pixels, Preprocessing


class Prepared(NamedTuple):
    """A photo ready for the model: uint8 pixels [h, w, 3], and what its header said."""

    pixels: Pixels
    width: int
    height: int
    format: str
    exif_rotated: bool
    taken: Taken = Taken()


def read_prepared(
    source: bytes | Path, preprocessing: Preprocessing, limits: PhotoLimits = DEFAULT_LIMITS
) -> Prepared:
    """Decode and prepare one photo by the model's rule; raises PhotoError."""
    return prepared(
        open_photo(source, min_side=preprocessing.min_side, limits=limits), preprocessing
    )


def prepared(photo: Photo, preprocessing: Preprocessing) -> Prepared:
    """Prepare an open photo by the model's rule."""
    pixels = preprocessing.prepare(photo.image)
    return Prepared(
        pixels, photo.width, photo.height, photo.format, photo.exif_rotated, photo.taken
    )
