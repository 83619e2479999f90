"""GET /images/{id}/thumbnail: a small JPEG of an indexed photo, made on request."""

import hashlib
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from multigrain.photo import PhotoError
from multigrain.thumbnail import jpeg_thumbnail
from service.asking.ids import ImageId
from service.asking.options import ThumbnailOptions
from service.asking.parameters import refuse_repeats
from service.errors import ProblemError
from service.routes.problems import SIDE_WORK, problems
from service.serving.engine import Engine
from service.serving.runtime import Runtime

router = APIRouter()

JPEG_QUALITY = 85


class _Thumbnail(NamedTuple):
    """A JPEG with its entity tag; no bytes when the client has it already."""

    etag: str
    jpeg: bytes | None


@router.get(
    "/images/{image_id}/thumbnail",
    response_class=Response,
    responses={
        **problems(*SIDE_WORK, "image_not_found", "photo_missing"),
        200: {"content": {"image/jpeg": {}}},
        304: {"description": "not modified"},
    },
)
async def thumbnail(
    request: Request,
    image_id: ImageId,
    options: Annotated[ThumbnailOptions, Query()],
) -> Response:
    """A small copy of an indexed photo, by the id of a hit."""
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    known_etags = request.headers.get("if-none-match", "")
    made = await runtime.side_work.run(
        partial(make_thumbnail, runtime.ready().engine, image_id, options.size, known_etags)
    )
    headers = {"ETag": made.etag, "Cache-Control": "no-cache"}
    if made.jpeg is None:
        return Response(status_code=304, headers=headers)
    return Response(made.jpeg, headers=headers, media_type="image/jpeg")


def make_thumbnail(engine: Engine, image_id: int, size: int, known_etags: str) -> _Thumbnail:
    """Shrink an indexed photo to fit a square of `size` pixels.

    The path comes from the catalog alone, and what lies there counts only while it holds the
    bytes that were indexed. Raises ProblemError image_not_found or photo_missing.
    """
    with engine.generations.lease() as searcher:
        if searcher.photo_path(image_id) is None:
            raise ProblemError("image_not_found", f"no image has the id {image_id}")
        photo = searcher.read_photo(image_id)
    if photo is None:
        raise _photo_missing(image_id)
    etag = _etag(photo, size)
    return _Thumbnail(etag, None if etag in known_etags else _shrink(photo, image_id, size))


def _etag(photo: bytes, size: int) -> str:
    """Name a thumbnail by what it is made from: the same bytes at the same size."""
    return f'"{hashlib.sha256(photo).hexdigest()[:32]}-{size}"'


def _shrink(photo: bytes, image_id: int, size: int) -> bytes:
    try:
        return jpeg_thumbnail(photo, size=size, quality=JPEG_QUALITY)
    except PhotoError:
        raise _photo_missing(image_id) from None


def _photo_missing(image_id: int) -> ProblemError:
    return ProblemError(
        "photo_missing", f"the original of image {image_id} is gone or was replaced"
    )
