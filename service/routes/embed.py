"""POST /embed: the embedding of a photo."""

import base64
import time
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from service.asking.options import EmbedOptions, EncodingFormat
from service.asking.parameters import merged
from service.batching.queries import Embedding
from service.receiving.given import read_photo
from service.routes import bodies
from service.routes.problems import BATCHED, BODY, problems
from service.routes.query_route import QueryRoute
from service.schemas.search import EmbedResponse, QueryPhoto
from service.serving.answering import Answered, Answering, answer_body
from service.serving.engine import Engine
from service.serving.hits import milliseconds, timing_of
from service.serving.runtime import Ready, Runtime
from service.serving.written import write

router = APIRouter(route_class=QueryRoute)


class _Wanted(NamedTuple):
    """The photo of a request, and how its embedding is to be written."""

    photo: bytes
    options: EmbedOptions


class _Embedded(NamedTuple):
    """What became of the photo, and how its embedding is to be written."""

    answered: Answered
    encoding_format: EncodingFormat


@router.post(
    "/embed",
    openapi_extra=bodies.EMBED,
    response_model=EmbedResponse,
    responses=problems(*BATCHED, *BODY, "image_url_disabled"),
)
async def embed(request: Request, options: Annotated[EmbedOptions, Query()]) -> Response:
    """Turn the photo in the body into its embedding, with which POST /search can be asked."""
    started_at = time.perf_counter()
    runtime: Runtime = request.state.runtime
    ready = runtime.ready_to_infer()
    work = partial(_answer, runtime, ready, request, options)
    received = await answer_body(runtime, ready, request, work)
    writing_at = time.perf_counter()
    answer = _response(request.state.request_id, ready.engine, received.answer)
    answer.timing_ms.receive = milliseconds(received.receive_seconds)
    return write(answer, started_at=started_at, writing_at=writing_at).response


async def _answer(
    runtime: Runtime, ready: Ready, request: Request, options: EmbedOptions, body: bytes
) -> _Embedded:
    answering = Answering(runtime, ready, request)
    answering.set_timeout(options.timeout_ms)
    content_type = request.headers.get("content-type", "")
    wanted = await answering.prepare(partial(_read, content_type, body, options))
    answering.set_timeout(wanted.options.timeout_ms)
    answered = await answering.with_photo(wanted.photo, None)
    return _Embedded(answered, wanted.options.encoding_format)


def _read(content_type: str, body: bytes, in_query: EmbedOptions) -> _Wanted:
    given = read_photo(content_type, body)
    options, _ = merged(in_query, given.fields)
    return _Wanted(given.photo, options)


def _response(request_id: str, engine: Engine, embedded: _Embedded) -> EmbedResponse:
    answered, encoding_format = embedded
    assert answered.facts is not None
    answer = answered.done.result
    return EmbedResponse(
        request_id=request_id,
        model=engine.model_name,
        dim=len(answer.embedding),
        encoding_format=encoding_format,
        embedding=_written(answer.embedding, encoding_format),
        query=QueryPhoto(**answered.facts._asdict()),
        batch_size=answer.batch_size,
        timing_ms=timing_of(answered),
    )


def _written(embedding: Embedding, encoding_format: EncodingFormat) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    numbers: list[float] = embedding.tolist()
    return numbers
