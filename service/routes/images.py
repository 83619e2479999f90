"""GET /images and GET /images/{id}: what the index knows of its photos."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from index.catalog_reader import Content
from index.errors import IndexFolderError
from service.asking.filter import filter_problem, parse_filter
from service.asking.ids import ImageId
from service.asking.options import ScrollOptions
from service.asking.parameters import refuse_parameters, refuse_repeats
from service.errors import ProblemError
from service.plain_json import plain_json, plain_text
from service.routes.problems import SIDE_WORK, problems
from service.schemas.image import Image, ImagePage
from service.serving.engine import Engine
from service.serving.runtime import Runtime

router = APIRouter()


@router.get("/images", response_model=ImagePage, responses=problems(*SIDE_WORK, "filter_invalid"))
async def images(request: Request, options: Annotated[ScrollOptions, Query()]) -> Response:
    """The photos of the index by id, some at a time; `next_cursor` leads on."""
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    engine = runtime.ready().engine
    return await runtime.side_work.run(partial(written_page, engine, options))


@router.get("/images/{image_id}", responses=problems(*SIDE_WORK, "image_not_found"))
async def image(request: Request, image_id: ImageId) -> Image:
    """What the index knows of one photo."""
    runtime: Runtime = request.state.runtime
    refuse_parameters(request.query_params.multi_items())
    engine = runtime.ready().engine
    return await runtime.side_work.run(partial(read_image, engine, image_id))


def read_image(engine: Engine, image_id: int) -> Image:
    """One photo; raises ProblemError image_not_found."""
    with engine.generations.lease() as searcher:
        found = searcher.contents([image_id])
    if not found:
        raise ProblemError("image_not_found", f"no image has the id {image_id}")
    return _image(found[0])


def written_page(engine: Engine, options: ScrollOptions) -> Response:
    """The answer with the photos behind the cursor; raises ProblemError filter_invalid."""
    page = read_page(engine, options)
    headers = {"X-Index-Generation": page.generation}
    return Response(page.model_dump_json(), headers=headers, media_type="application/json")


def read_page(engine: Engine, options: ScrollOptions) -> ImagePage:
    """The photos behind the cursor; raises ProblemError filter_invalid."""
    filters = parse_filter(options.filter) if options.filter is not None else ()
    after = -1 if options.cursor is None else options.cursor
    with engine.generations.lease() as searcher:
        try:
            searcher.require_columns(filters)
        except IndexFolderError as error:
            raise filter_problem(str(error)) from error
        # One more than asked for tells whether there are more.
        ids = searcher.scroll(after=after, limit=options.limit + 1, filters=filters)
        found = searcher.contents(ids[: options.limit])
        generation = searcher.generation
    return ImagePage(
        generation=generation,
        images=[_image(one) for one in found],
        count=len(found),
        next_cursor=str(ids[options.limit - 1]) if len(ids) > options.limit else None,
    )


def _image(content: Content) -> Image:
    return Image(
        id=str(content.id),
        uri=plain_text(content.uri),
        thumbnail_url=f"/images/{content.id}/thumbnail?size=256",
        sha256=content.sha256,
        bytes=content.bytes,
        width=content.width,
        height=content.height,
        format=content.format,
        taken_at=content.taken_at,
        camera=None if content.camera is None else plain_text(content.camera),
        metadata={plain_text(key): plain_json(each) for key, each in content.metadata.items()},
    )
