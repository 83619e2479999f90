"""A picture of a test set as an image: its photo upright, cut to its box, turned."""

from PIL import Image

from multigrain.photo import PhotoError, open_photo
from trainer.protocols.test_set import Picture


def picture_image(picture: Picture, data: bytes, *, min_side: int | None = None) -> Image.Image:
    """Decode the photo's bytes and edit it; raises PhotoError.

    With `min_side` a photo without a box may be decoded at a reduced scale.
    """
    # A box is in the photo's own pixels.
    image = open_photo(data, min_side=min_side if picture.box is None else None).image
    if picture.box is not None:
        left, top, right, bottom = (round(side) for side in picture.box)
        box = max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise PhotoError(
                "photo_unreadable", f"box {picture.box} holds no pixel of {picture.path}"
            )
        image = image.crop(box)
    # Quarter turns lose no pixel; PIL counts them the other way round.
    return image.rotate(-90 * picture.turns, expand=True)
