"""Validation pictures: the photos, and edited copies of them whose right answer is known."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from multigrain.transforms import Pixels, Preprocessing
from multigrain.views import VIEW_KINDS, edited_view
from trainer.inputs.labels import PhotoSet
from trainer.seeds import seed_of

COPIES_PER_PHOTO = 3
MOST_COPIED_PHOTOS = 2000  # the score is stable by then, and a large set would take an hour


class Picture(NamedTuple):
    """A photo, or with a number its edited copy of that number."""

    photo_id: int
    copy: int | None = None


def copies_of(photo_ids: Sequence[int], *, num_photos: int) -> list[Picture]:
    """Return the copies of these photos out of `num_photos`, of which every n-th has copies."""
    every = -(-num_photos // MOST_COPIED_PHOTOS)
    return [
        Picture(photo_id, copy)
        for photo_id in photo_ids
        if photo_id % every == 0
        for copy in range(COPIES_PER_PHOTO)
    ]


def picture_image(photos: PhotoSet, picture: Picture, *, min_side: int) -> Image.Image:
    """Decode a photo and edit it if a copy is meant; raises PhotoError."""
    image = photos.image(picture.photo_id, min_side=min_side)
    if picture.copy is None:
        return image
    seed = seed_of("copy", photos.names[picture.photo_id], picture.copy)
    # Photos take turns, so that a small set too meets every kind of edit.
    turn = picture.photo_id * COPIES_PER_PHOTO + picture.copy
    return edited_view(image, kind=VIEW_KINDS[turn % len(VIEW_KINDS)], seed=seed)


def prepared_picture(photos: PhotoSet, picture: Picture, preprocessing: Preprocessing) -> Pixels:
    """Decode and prepare one picture; raises PhotoError."""
    return preprocessing.prepare(picture_image(photos, picture, min_side=preprocessing.min_side))
