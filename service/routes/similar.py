"""GET /images/{id}/similar: the neighbours of a photo of the index, without its bytes."""

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.asking.ids import ImageId
from service.asking.parameters import refuse_repeats
from service.asking.search_options import Asked, SearchOptions
from service.batching.queries import Query as BatchQuery
from service.batching.queries import Source
from service.errors import ProblemError
from service.routes.problems import BATCHED, problems
from service.routes.search import Finding, finish, search_of
from service.schemas.search import SearchResponse
from service.serving.answering import Answering, until_client_leaves
from service.serving.engine import Engine
from service.serving.runtime import Ready, Runtime
from service.settings import Settings

router = APIRouter()


@router.get(
    "/images/{image_id}/similar",
    response_model=SearchResponse,
    responses=problems(*BATCHED, "image_not_found", "filter_invalid"),
)
async def similar(
    request: Request,
    image_id: ImageId,
    options: Annotated[SearchOptions, Query()],
) -> Response:
    """Find the photos that look like one of the index, which is not among them."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    ready = runtime.ready_to_infer()
    with ready.batcher.places.take(request.state.client):
        work = _answer(runtime, ready, request, image_id, options)
        found = await until_client_leaves(work, request.receive)
    return await finish(runtime, ready, request, found, started_at=started_at)


async def _answer(
    runtime: Runtime, ready: Ready, request: Request, image_id: int, options: SearchOptions
) -> Finding:
    answering = Answering(runtime, ready, request)
    answering.set_timeout(options.timeout_ms)
    read = partial(_read, ready.engine, runtime.settings, image_id, options)
    query = await answering.prepare(read)
    return Finding(await answering.ask(query), options)


def _read(engine: Engine, settings: Settings, image_id: int, options: SearchOptions) -> BatchQuery:
    """The stored embedding of a photo, and how to search with it.

    An id is never given twice, so another generation may answer.
    """
    search = search_of(Asked(options), engine, settings, has_photo=False)
    with engine.generations.lease() as searcher:
        embedding = searcher.embedding(image_id)
    if embedding is None:
        raise ProblemError("image_not_found", f"no image has the id {image_id}")
    others = search.page._replace(without_id=image_id)
    return BatchQuery(Source(embedding=embedding), search._replace(page=others))
