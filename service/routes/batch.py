"""POST /search/batch: several photos in one form, each answered or refused by itself."""

import asyncio
import time
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from service.asking.search_options import SearchOptions, merge_options
from service.batching.queries import Search
from service.errors import problem_document
from service.receiving.upload import not_empty, read_photos
from service.routes import bodies
from service.routes.problems import BATCHED, BODY, problems
from service.routes.query_route import QueryRoute
from service.routes.search import search_of
from service.schemas.problem import Problem
from service.schemas.search import BatchProblem, BatchResponse, BatchResult
from service.serving.answering import Answering, answer_body
from service.serving.engine import Engine
from service.serving.hits import milliseconds, search_response
from service.serving.runtime import Ready, Runtime
from service.serving.written import write_batch
from service.settings import Settings
from service.translations import problem_of

router = APIRouter(route_class=QueryRoute)

_Item = BatchResult | BatchProblem


class _Wanted(NamedTuple):
    """The photos of one request, and how each is searched with."""

    photos: tuple[bytes, ...]
    options: SearchOptions
    search: Search


@router.post(
    "/search/batch",
    openapi_extra=bodies.BATCH,
    response_model=BatchResponse,
    responses=problems(*BATCHED, *BODY, "filter_invalid"),
)
async def search_batch(request: Request, options: Annotated[SearchOptions, Query()]) -> Response:
    """Search with each part `image` of the form; a photo that fails disturbs no other."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    ready = runtime.ready_to_infer()
    work = partial(_answer, runtime, ready, request, options)
    received = await answer_body(runtime, ready, request, work)
    writing_at, items = time.perf_counter(), received.answer
    for item in items:
        if isinstance(item, BatchResult):
            runtime.metrics.note_search(item.result)
            runtime.metrics.note_stages(dict(item.result.timing_ms))
        else:
            runtime.metrics.note_problem(item.problem.code)
    answer = BatchResponse(request_id=request.state.request_id, count=len(items), items=items)
    written = await runtime.in_decoder(  # thousands of hits would hold up the event loop
        write_batch,
        answer,
        receive_seconds=received.receive_seconds,
        started_at=started_at,
        writing_at=writing_at,
    )
    runtime.metrics.note_stages(written.stages)
    return written.response


async def _answer(
    runtime: Runtime, ready: Ready, request: Request, options: SearchOptions, body: bytes
) -> list[_Item]:
    answering = Answering(runtime, ready, request)
    answering.set_timeout(options.timeout_ms)
    content_type = request.headers.get("content-type", "")
    wanted = await answering.prepare(
        partial(_read, ready.engine, runtime.settings, content_type, body, options)
    )
    answering.set_timeout(wanted.options.timeout_ms)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_item(answering, ready, request, wanted, number))
            for number in range(len(wanted.photos))
        ]
    return [task.result() for task in tasks]


def _read(
    engine: Engine, settings: Settings, content_type: str, body: bytes, in_query: SearchOptions
) -> _Wanted:
    form = read_photos(content_type, body)
    asked = merge_options(in_query, form.fields)
    return _Wanted(form.photos, asked.options, search_of(asked, engine, settings))


async def _item(
    answering: Answering, ready: Ready, request: Request, wanted: _Wanted, number: int
) -> _Item:
    """What one photo finds, or why it finds nothing."""
    started_at = time.perf_counter()
    request_id: str = request.state.request_id
    try:
        photo = not_empty(wanted.photos[number])
        if number == 0:  # the place of the request itself
            answered = await answering.with_photo(photo, wanted.search)
        else:
            with ready.batcher.places.take(request.state.client):
                answered = await answering.with_photo(photo, wanted.search)
    except Exception as error:  # noqa: BLE001 - whatever happens to one photo is its own
        document = problem_document(request_id, problem_of(error, request))
        return BatchProblem(problem=Problem(**document))
    result = search_response(request_id, ready.engine.model_name, answered, wanted.options)
    result.timing_ms.total = milliseconds(time.perf_counter() - started_at)
    return BatchResult(result=result)
