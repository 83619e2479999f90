"""POST /search: the neighbours of what the body holds, a photo or an embedding."""

import time
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from service import bodies
from service.answering import Answered, Answering, answer_body
from service.engine import Engine
from service.fetcher import Fetcher
from service.given import Given, read_given
from service.hits import milliseconds, say_timing, search_response
from service.options import (
    Asked,
    Include,
    SearchOptions,
    check_together,
    merge_options,
    refuse_repeats,
)
from service.paging import Page
from service.plan import DepthLimits, plan_of
from service.problems import ADDRESS, BATCHED, BODY, problems
from service.queries import Query as BatchQuery
from service.queries import Search, Source
from service.runtime import Ready, Runtime
from service.schemas import SearchResponse
from service.settings import Settings
from service.telemetry import trace_stages
from service.upload import not_empty

router = APIRouter()


class _Wanted(NamedTuple):
    """What one request searches with, and how."""

    given: Given
    options: SearchOptions
    search: Search


@router.post(
    "/search",
    openapi_extra=bodies.SEARCH,
    response_model_exclude_unset=True,
    responses=problems(*BATCHED, *BODY, *ADDRESS, "filter_invalid", "embedding_invalid"),
)
async def search(
    request: Request, response: Response, options: Annotated[SearchOptions, Query()]
) -> SearchResponse:
    """Find the photos that look like the one in the body."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    ready = runtime.ready()
    work = partial(_answer, runtime, ready, request, options)
    received = await answer_body(runtime, ready, request, work)
    answer = received.answer
    answer.timing_ms.receive = milliseconds(received.receive_seconds)
    finish(runtime, response, answer, started_at=started_at)
    return answer


async def _answer(
    runtime: Runtime, ready: Ready, request: Request, options: SearchOptions, body: bytes
) -> SearchResponse:
    """Take the body apart, check what is asked, and search in a batch."""
    request_id: str = request.state.request_id
    answering = Answering(runtime, ready, request_id)
    answering.set_timeout(options.timeout_ms)
    content_type = request.headers.get("content-type", "")
    engine, settings = ready.engine, runtime.settings
    wanted = await answering.prepare(partial(_read, engine, settings, content_type, body, options))
    answering.set_timeout(wanted.options.timeout_ms)
    answered = await _answered(answering, wanted, runtime.fetcher)
    return search_response(request_id, engine.model_name, answered, wanted.options)


async def _answered(answering: Answering, wanted: _Wanted, fetcher: Fetcher) -> Answered:
    given = wanted.given
    if given.url is not None:
        photo = await answering.wait_for(fetcher.fetch(given.url))
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


def finish(
    runtime: Runtime, response: Response, answer: SearchResponse, *, started_at: float
) -> None:
    """Note the whole time where it is watched, and say beside an answer what balancers read."""
    say_timing(response, answer.timing_ms, started_at=started_at)
    response.headers["X-Index-Generation"] = answer.generation
    runtime.metrics.note_search(answer)
    trace_stages(answer.timing_ms)
