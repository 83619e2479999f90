"""POST /search: the neighbours of what the body holds, a photo or an embedding."""

import time
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from service.asking.paging import Page
from service.asking.plan import DepthLimits, plan_of
from service.asking.search_options import (
    Asked,
    Include,
    SearchOptions,
    check_together,
    merge_options,
)
from service.batching.queries import Query as BatchQuery
from service.batching.queries import Search, Source
from service.receiving.fetcher import Fetcher
from service.receiving.given import Given, read_given
from service.receiving.upload import not_empty
from service.routes import bodies
from service.routes.problems import ADDRESS, BATCHED, BODY, problems
from service.routes.query_route import QueryRoute
from service.schemas.search import SearchResponse
from service.serving.answering import Answered, Answering, answer_body
from service.serving.engine import Engine
from service.serving.hits import milliseconds, search_response
from service.serving.runtime import Ready, Runtime
from service.serving.written import Written, write
from service.settings import Settings
from service.watching.telemetry import trace_stages

router = APIRouter(route_class=QueryRoute)

# Some 10 microseconds each; an embedding takes a hundred.
_MAX_HITS_WRITTEN_AT_ONCE = 100


class Finding(NamedTuple):
    """What was found, and the parameters that say how to write it."""

    answered: Answered
    options: SearchOptions


class _Wanted(NamedTuple):
    """What one request searches with, and how."""

    given: Given
    options: SearchOptions
    search: Search


@router.post(
    "/search",
    openapi_extra=bodies.SEARCH,
    response_model=SearchResponse,
    responses=problems(*BATCHED, *BODY, *ADDRESS, "filter_invalid", "embedding_invalid"),
)
async def search(request: Request, options: Annotated[SearchOptions, Query()]) -> Response:
    """Find the photos that look like the one in the body."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    ready = runtime.ready_to_infer()
    work = partial(_answer, runtime, ready, request, options)
    received = await answer_body(runtime, ready, request, work)
    return await finish(
        runtime,
        ready,
        request,
        received.answer,
        started_at=started_at,
        receive_seconds=received.receive_seconds,
    )


async def _answer(
    runtime: Runtime, ready: Ready, request: Request, options: SearchOptions, body: bytes
) -> Finding:
    """Take the body apart, check what is asked, and search in a batch."""
    answering = Answering(runtime, ready, request)
    answering.set_timeout(options.timeout_ms)
    content_type = request.headers.get("content-type", "")
    engine, settings = ready.engine, runtime.settings
    wanted = await answering.prepare(partial(_read, engine, settings, content_type, body, options))
    answering.set_timeout(wanted.options.timeout_ms)
    return Finding(await _answered(answering, wanted, runtime.fetcher), wanted.options)


async def _answered(answering: Answering, wanted: _Wanted, fetcher: Fetcher) -> Answered:
    given = wanted.given
    if given.url is not None:
        photo = await answering.wait_for(fetcher.fetch(given.url), "fetch")
        return await answering.with_photo(not_empty(photo), wanted.search)
    if given.photo is not None:
        return await answering.with_photo(given.photo, wanted.search)
    return await answering.ask(BatchQuery(Source(embedding=given.embedding), wanted.search))


def _read(
    engine: Engine, settings: Settings, content_type: str, body: bytes, in_query: SearchOptions
) -> _Wanted:
    given = read_given(content_type, body, dim=engine.embedder.dim, urls=settings.image_url)
    asked = merge_options(in_query, given.fields)
    search = search_of(asked, engine, settings, has_photo=given.embedding is None)
    return _Wanted(given, asked.options, search)


def search_of(
    asked: Asked, engine: Engine, settings: Settings, *, has_photo: bool = True
) -> Search:
    """How to search and which hits are wanted; raises ProblemError for what cannot be asked."""
    check_together(asked, max_limit=settings.max_limit, has_photo=has_photo)
    limits = DepthLimits(settings.max_nprobe, settings.exact_max_photos)
    with engine.generations.lease() as searcher:
        plan = plan_of(asked, searcher, limits)
    options = asked.options
    page = Page(
        options.limit, options.offset, options.min_score, options.min_probability, options.dedup
    )
    with_embeddings = Include.EMBEDDING in options.included
    return Search(plan, page, with_embeddings, options.augment)


async def finish(
    runtime: Runtime,
    ready: Ready,
    request: Request,
    found: Finding,
    *,
    started_at: float,
    receive_seconds: float = 0.0,
) -> Response:
    """Write an answer, and note its stages where they are watched."""

    def put() -> tuple[SearchResponse, Written]:
        writing_at = time.perf_counter()
        answer = search_response(request.state.request_id, ready.engine.model_name, *found)
        answer.timing_ms.receive = milliseconds(receive_seconds)
        return answer, write(answer, started_at=started_at, writing_at=writing_at)

    answer, written = await runtime.in_decoder(put) if _is_long(found.options) else put()
    written.response.headers["X-Index-Generation"] = answer.generation
    runtime.metrics.note_search(answer)
    runtime.metrics.note_stages(written.stages)
    if runtime.settings.telemetry:
        trace_stages(written.stages)
    return written.response


def _is_long(options: SearchOptions) -> bool:
    """Whether the answer takes longer to write than the event loop may be held up."""
    return Include.EMBEDDING in options.included or options.limit > _MAX_HITS_WRITTEN_AT_ONCE
