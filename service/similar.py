"""GET /images/{id}/similar: the neighbours of a photo of the index, without its bytes."""

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.answering import Answering, until_client_leaves
from service.engine import Engine
from service.errors import ProblemError
from service.hits import search_response
from service.ids import ImageId
from service.options import Asked, SearchOptions, refuse_repeats
from service.problems import BATCHED, problems
from service.queries import Query as BatchQuery
from service.queries import Source
from service.runtime import Ready, Runtime
from service.schemas import SearchResponse
from service.search import finish, search_of
from service.settings import Settings

router = APIRouter()


@router.get(
    "/images/{image_id}/similar",
    response_model_exclude_unset=True,
    responses=problems(*BATCHED, "image_not_found", "filter_invalid"),
)
async def similar(
    request: Request,
    response: Response,
    image_id: ImageId,
    options: Annotated[SearchOptions, Query()],
) -> SearchResponse:
    """Find the photos that look like one of the index, which is not among them."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    ready = runtime.ready()
    with ready.batcher.places.take(request.state.client):
        work = _answer(runtime, ready, request.state.request_id, image_id, options)
        answer = await until_client_leaves(work, request.receive)
    finish(runtime, response, answer, started_at=started_at)
    return answer


async def _answer(
    runtime: Runtime, ready: Ready, request_id: str, image_id: int, options: SearchOptions
) -> SearchResponse:
    answering = Answering(runtime, ready, request_id)
    answering.set_timeout(options.timeout_ms)
    read = partial(_read, ready.engine, runtime.settings, image_id, options)
    query = await answering.prepare(read)
    answered = await answering.ask(query)
    return search_response(request_id, ready.engine.model_name, answered, options)


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
