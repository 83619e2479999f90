"""POST /search: one photo's way from bytes to hits."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive

from index.errors import RecallNotReachedError
from index.searcher import Neighbour
from service import schemas
from service.batcher import DeadlineExceededError, Done
from service.engine import Answer, QueryPhoto
from service.engine import Query as EngineQuery
from service.errors import ClientGoneError, Fault, validation_problem
from service.plain_json import plain_json, plain_text
from service.runtime import Ready, Runtime
from service.schemas import Hit, SearchOptions, SearchResponse, TimingMs
from service.upload import merge_options, read_upload, receive_body, refuse_repeats

T = TypeVar("T")

router = APIRouter()

_PHOTO = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": _PHOTO,
                        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                        "recall": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                    },
                }
            },
            "image/*": {"schema": _PHOTO},
            "application/octet-stream": {"schema": _PHOTO},
        },
    }
}


class _Found(NamedTuple):
    """What a search yielded, and the seconds from the complete body to the model's input."""

    photo: QueryPhoto
    limit: int
    done: Done[Answer]
    decode_seconds: float


@router.post("/search", openapi_extra=_BODY)
async def search(
    request: Request, response: Response, options: Annotated[SearchOptions, Query()]
) -> SearchResponse:
    """Find the photos that look like the one in the body."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    refuse_repeats(request.query_params.multi_items(), "query")
    ready = runtime.ready()
    with ready.batcher.admit():
        body = await receive_body(
            request,
            max_bytes=runtime.settings.max_body_bytes,
            timeout_seconds=runtime.settings.body_timeout_s,
        )
        received_at = time.perf_counter()
        work = _find(runtime, ready, request, body, options)
        found = await until_client_leaves(work, request.receive)
    answer = _response(request.state.request_id, ready, found)
    answer.timing_ms.receive = _milliseconds(received_at - started_at)
    answer.timing_ms.total = _milliseconds(time.perf_counter() - started_at)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server-Timing"] = server_timing(answer.timing_ms)
    response.headers["X-Index-Generation"] = answer.generation
    return answer


async def _find(
    runtime: Runtime, ready: Ready, request: Request, body: bytes, options: SearchOptions
) -> _Found:
    """Take the body apart, decode the photo, and search with it in a batch."""
    deadline = asyncio.get_running_loop().time() + runtime.settings.request_timeout_ms / 1000
    started_at = time.perf_counter()
    content_type = request.headers.get("content-type", "")
    with ready.batcher.arriving():
        try:
            async with asyncio.timeout_at(deadline):
                upload = await runtime.in_decoder(read_upload, content_type, body)
                merged = merge_options(options, upload.fields)
                if merged.recall is not None:
                    place = "form" if options.recall is None else "query"
                    _require_recall(ready, merged.recall, place)
                photo = await runtime.in_decoder(ready.engine.read, upload.photo, runtime.limits)
        except TimeoutError:
            raise DeadlineExceededError("the photo was not decoded before the deadline") from None
        decode_seconds = time.perf_counter() - started_at
    # One neighbour more than asked for tells whether there are more.
    query = EngineQuery(photo.pixels, merged.limit + 1, merged.recall)
    done = await ready.batcher.submit(query, deadline=deadline, request_id=request.state.request_id)
    return _Found(photo, merged.limit, done, decode_seconds)


def _require_recall(ready: Ready, recall: float, place: str) -> None:
    """Refuse a recall that no measured search reaches, before it is part of a batch."""
    try:
        with ready.engine.generations.lease() as searcher:
            searcher.require_recall(recall)
    except RecallNotReachedError as error:
        raise validation_problem([Fault(f"{place}.recall", str(error))]) from error


async def until_client_leaves(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Run `work`, but cancel it when the client closes the connection: raises ClientGoneError.

    FastAPI does not do this. Once the body is read, `receive` returns only on a disconnect.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _response(request_id: str, ready: Ready, found: _Found) -> SearchResponse:
    started_at = time.perf_counter()
    answer = found.done.result
    photo = found.photo
    hits = [
        _hit(rank, neighbour) for rank, neighbour in enumerate(answer.neighbours[: found.limit], 1)
    ]
    return SearchResponse(
        request_id=request_id,
        generation=answer.generation,
        model=ready.engine.model_name,
        query=schemas.QueryPhoto(
            sha256=photo.sha256,
            width=photo.width,
            height=photo.height,
            format=photo.format,
            exif_rotated=photo.exif_rotated,
        ),
        results=hits,
        count=len(hits),
        has_more=len(answer.neighbours) > found.limit,
        batch_size=answer.batch_size,
        timing_ms=TimingMs(
            receive=0.0,
            decode=_milliseconds(found.decode_seconds),
            queue=_milliseconds(found.done.queue_seconds),
            infer=_milliseconds(answer.infer_seconds),
            search=_milliseconds(answer.search_seconds),
            metadata=_milliseconds(time.perf_counter() - started_at),
            total=0.0,
        ),
    )


def _hit(rank: int, neighbour: Neighbour) -> Hit:
    return Hit(
        rank=rank,
        id=str(neighbour.id),
        # A cosine of two unit vectors may exceed 1 by a rounding error.
        score=min(1.0, max(-1.0, neighbour.score)),
        uri=plain_text(neighbour.uri),
        thumbnail_url=f"/images/{neighbour.id}/thumbnail?size=256",
        metadata={plain_text(key): plain_json(each) for key, each in neighbour.metadata.items()},
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def server_timing(timing: TimingMs) -> str:
    """The Server-Timing header: stage names with their milliseconds."""
    return ", ".join(f"{stage};dur={spent:g}" for stage, spent in timing)
