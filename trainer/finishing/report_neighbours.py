"""Some validation photos and edited copies with their nearest photos, as small pictures."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multigrain.photo import PhotoError
from trainer.finishing.copies import COPIES_PER_PHOTO, Picture, picture_image
from trainer.finishing.embedded import Part
from trainer.finishing.report_data import Query, Shown
from trainer.finishing.validate import Gallery
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import spread
from trainer.losses.gather import gather_rows

NUM_QUERIES = 6  # of each kind
NUM_NEIGHBOURS = 5
_SIDE = 128  # pixels of a picture
_QUALITY = 80


class Found(NamedTuple):
    """A query and its nearest photos: their ids and distances, nearest first."""

    picture: Picture
    photo_ids: list[int]
    distances: list[float]


def nearest(part: Part, gallery: Gallery, photos: PhotoSet) -> list[Found]:
    """Return the queries to show, spread over the photos; the same on every process."""
    ids = gallery.photo_ids.tolist()
    chosen = spread(len(ids), NUM_QUERIES)
    found = _of_copies(part, gallery, [ids[row] for row in chosen])
    if photos.class_names is None:
        return found
    pictures = [Picture(ids[row]) for row in chosen]
    return _search(pictures, gallery.embedding[chosen], gallery, own=chosen) + found


def shown(found: Sequence[Found], photos: PhotoSet) -> tuple[Query, ...]:
    """Decode and shrink the photos; a query that cannot be read any more is left out."""
    queries = []
    for one in found:
        try:
            queries.append(_query(one, photos))
        except PhotoError:  # it was readable a minute ago; the report goes on without it
            continue
    return tuple(queries)


def _of_copies(part: Part, gallery: Gallery, copied: list[int]) -> list[Found]:
    """Search one copy of each of these photos, in turn its first, second and third."""
    wanted = {(photo_id, turn % COPIES_PER_PHOTO) for turn, photo_id in enumerate(copied)}
    rows = [row for row, picture in enumerate(part.copies.pictures) if picture in wanted]
    pictures = torch.tensor([part.copies.pictures[row] for row in rows], dtype=torch.int64)
    device = gallery.photo_ids.device
    everyone = gather_rows(pictures.view(len(rows), 2).to(device)).tolist()
    return _search(
        [Picture(photo_id, copy) for photo_id, copy in everyone],
        gather_rows(part.copies.embedding[rows]),
        gallery,
        own=None,
    )


def _search(
    pictures: list[Picture], queries: Tensor, gallery: Gallery, *, own: list[int] | None
) -> list[Found]:
    cosines = queries @ gallery.embedding.T
    if own is not None:
        cosines[range(len(own)), own] = -torch.inf
    num_others = len(gallery.photo_ids) - (own is not None)
    best = cosines.topk(min(NUM_NEIGHBOURS, num_others), dim=1)
    distances = (2 - 2 * best.values).clamp(0, 4).sqrt().tolist()
    ids = gallery.photo_ids[best.indices].tolist()
    return [Found(*one) for one in zip(pictures, ids, distances, strict=True)]


def _query(found: Found, photos: PhotoSet) -> Query:
    picture = found.picture
    by_class = picture.copy is None

    def is_right(photo_id: int) -> bool:
        if by_class:
            return photos.labels[photo_id] == photos.labels[picture.photo_id]
        return photo_id == picture.photo_id

    neighbours = tuple(
        _shown(Picture(photo_id), photos).model_copy(
            update={"distance": distance, "right": is_right(photo_id)}
        )
        for photo_id, distance in zip(found.photo_ids, found.distances, strict=True)
    )
    return Query(
        by="class" if by_class else "copy", query=_shown(picture, photos), neighbours=neighbours
    )


def _shown(picture: Picture, photos: PhotoSet) -> Shown:
    image = picture_image(photos, picture, min_side=_SIDE)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    label = photos.labels[picture.photo_id]
    return Shown(
        # A name need not be UTF-8, a JSON file must.
        name=photos.names[picture.photo_id]
        .encode(errors="surrogateescape")
        .decode(errors="backslashreplace"),
        label=None if photos.class_names is None else photos.class_names[label],
        picture="data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
    )
