"""Every way a request can fail, as one table of codes and one shape of answer (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from index.errors import (
    ChangesRefusedError,
    IndexFolderError,
    NotWriterError,
    OnlyReadError,
    RecallNotReachedError,
)
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError
from service.batching.batch_errors import (
    ClientLimitError,
    DeadlineExceededError,
    EngineDeadError,
    QueueFullError,
)

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
# nginx's number for a client that has gone; nobody reads this answer.
CLIENT_GONE_STATUS = 499
# What a 503 asks for: longer than a restart of the engine's queue, shorter than a drain.
UNAVAILABLE_RETRY_SECONDS = 5


class _Kind(NamedTuple):
    status: int
    title: str


KINDS: Mapping[str, _Kind] = {
    "malformed_multipart": _Kind(400, "Malformed multipart body"),
    "malformed_json": _Kind(400, "Malformed JSON"),
    "bad_base64": _Kind(400, "Not base64"),
    "duplicate_image_part": _Kind(400, "More than one image"),
    "empty_image": _Kind(400, "Empty image"),
    "image_undecodable": _Kind(400, "Not a readable image"),
    "bad_request": _Kind(400, "Bad request"),
    "unauthorized": _Kind(401, "A key is needed"),
    "forbidden": _Kind(403, "Not allowed"),
    "not_found": _Kind(404, "Not found"),
    "image_not_found": _Kind(404, "No such image"),
    "photo_missing": _Kind(404, "The original photo is gone"),
    "method_not_allowed": _Kind(405, "Method not allowed"),
    "body_timeout": _Kind(408, "The body arrived too slowly"),
    "not_writer": _Kind(409, "Another service takes the changes"),
    "reload_in_progress": _Kind(409, "A reload is under way"),
    "payload_too_large": _Kind(413, "Body too large"),
    "image_too_many_pixels": _Kind(413, "Image too large"),
    "image_side_too_long": _Kind(413, "Image side too long"),
    "unsupported_media_type": _Kind(415, "Unsupported media type"),
    "validation": _Kind(422, "Invalid request"),
    "index_refused": _Kind(422, "The index was not taken up"),
    "filter_invalid": _Kind(422, "Invalid filter"),
    "embedding_invalid": _Kind(422, "Not an embedding of this index"),
    "image_side_too_short": _Kind(422, "Image side too short"),
    "image_url_refused": _Kind(422, "No photo is fetched from this address"),
    "image_url_disabled": _Kind(422, "Photos are not fetched from addresses"),
    "queue_full": _Kind(429, "Too many requests"),
    "client_limit": _Kind(429, "Too many requests of one client"),
    "internal": _Kind(500, "Internal error"),
    "not_ready": _Kind(503, "Not ready yet"),
    "draining": _Kind(503, "Shutting down"),
    "engine_dead": _Kind(503, "The model has stopped"),
    "index_unavailable": _Kind(503, "The index cannot be read"),
    "deadline_exceeded": _Kind(504, "Deadline exceeded"),
}
_CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


class Fault(NamedTuple):
    """One invalid parameter: where it stands (`query.limit`) and what is wrong with it."""

    loc: str
    msg: str


class ProblemError(MultiGrainError):
    """A request that is answered with a problem document; `code` is a key of KINDS."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """The client closed its connection: while it sent, or before the answer was."""


INTERNAL = ProblemError("internal", "unexpected; the server's log names it by the request_id")


def problem_response(request_id: str, problem: ProblemError) -> JSONResponse:
    """Write a problem as its document; 429 and 503 carry Retry-After."""
    document = problem_document(request_id, problem)
    status = document["status"]
    headers = {"Cache-Control": "no-store"} | problem.headers
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(UNAVAILABLE_RETRY_SECONDS))
    return JSONResponse(document, status, headers, PROBLEM_MEDIA_TYPE)


def problem_document(request_id: str, problem: ProblemError) -> dict[str, Any]:
    """A problem as JSON says it."""
    status, title = KINDS[problem.code]
    document: dict[str, Any] = {
        "type": f"/problems/{problem.code.replace('_', '-')}",
        "title": title,
        "status": status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
    }
    if problem.faults:
        document["errors"] = [fault._asdict() for fault in problem.faults]
    return document


def validation_problem(faults: Sequence[Fault]) -> ProblemError:
    """One 422 for all invalid parameters of a request."""
    detail = "; ".join(f"{fault.loc}: {fault.msg}" for fault in faults)
    return ProblemError("validation", detail, faults=faults)


def faults_of(details: Sequence[Mapping[str, Any]], *prefix: str) -> list[Fault]:
    """Turn pydantic's error details into faults; `prefix` stands before each location."""
    return [
        Fault(".".join([*prefix, *(str(part) for part in detail["loc"])]), _message(detail))
        for detail in details
    ]


def _message(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":  # pydantic's own words mean a programmer
        return "there is no such parameter; see /openapi.json"
    return str(detail["msg"])


def _from_http(error: HTTPException, request: Request) -> ProblemError:
    code = _CODE_OF_STATUS.get(error.status_code, "bad_request")
    # Of the path alone: the URL holds the Host header, which may be none.
    detail = f"{request.method[:20]} {request.scope['path'][:200]}: {error.detail}"
    return ProblemError(code, detail, headers=error.headers)


def _from_photo(error: PhotoError, _request: Request) -> ProblemError:
    return ProblemError(error.code, str(error))


def _from_validation(error: RequestValidationError, _request: Request) -> ProblemError:
    return validation_problem(faults_of(error.errors()))


def full_queue_problem(error: QueueFullError) -> ProblemError:
    """One 429 that says when to come back."""
    headers = {"Retry-After": str(error.retry_after_seconds)}
    code = "client_limit" if isinstance(error, ClientLimitError) else "queue_full"
    return ProblemError(code, str(error), headers=headers)


def _from_recall(error: RecallNotReachedError, _request: Request) -> ProblemError:
    # The generation was swapped between the check of the parameter and the search.
    return validation_problem([Fault("recall", str(error))])


def _from_refusal(error: ChangesRefusedError, request: Request) -> ProblemError:
    # Where the folder lies is not the client's to know.
    logger.error("request %s: %s", request.state.request_id, error)
    return ProblemError("forbidden", "the index folder takes no changes; the server's log says why")


def _from_copy(error: OnlyReadError, request: Request) -> ProblemError:
    logger.error("request %s: %s", request.state.request_id, error)
    return ProblemError(
        "forbidden", "this index is only read here: add and delete where it is built and pushed"
    )


def _from_other_writer(_error: NotWriterError, _request: Request) -> ProblemError:
    return ProblemError("not_writer", "another service takes the adds and deletes of this index")


def _from_index(error: IndexFolderError, request: Request) -> ProblemError:
    logger.error("request %s: %s", request.state.request_id, error)
    return ProblemError("index_unavailable", "the index cannot be read at the moment")


_TRANSLATIONS: Mapping[type[Exception], Callable[[Any, Request], ProblemError]] = {
    ProblemError: lambda error, _request: error,
    PhotoError: _from_photo,
    RequestValidationError: _from_validation,
    HTTPException: _from_http,
    QueueFullError: lambda error, _request: full_queue_problem(error),
    DeadlineExceededError: lambda error, _: ProblemError("deadline_exceeded", str(error)),
    EngineDeadError: lambda error, _: ProblemError("engine_dead", str(error)),
    RecallNotReachedError: _from_recall,
    ChangesRefusedError: _from_refusal,
    OnlyReadError: _from_copy,
    NotWriterError: _from_other_writer,
    IndexFolderError: _from_index,
}


def problem_of(error: Exception, request: Request) -> ProblemError:
    """What a part of a request that failed is told; what nobody foresaw is logged."""
    for kind in type(error).__mro__:
        if kind in _TRANSLATIONS:
            return _TRANSLATIONS[kind](error, request)
    logger.error("request %s failed", request.state.request_id, exc_info=error)
    return INTERNAL


async def _answer_nobody(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClientGoneError)
    request.state.has_left = True
    return Response(status_code=CLIENT_GONE_STATUS)


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of a request a problem document."""
    for kind, translate in _TRANSLATIONS.items():
        app.add_exception_handler(kind, _answer_with(translate))
    app.add_exception_handler(ClientGoneError, _answer_nobody)


def _answer_with(
    translate: Callable[[Any, Request], ProblemError],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        problem = translate(error, request)
        request.state.problem = problem.code
        return problem_response(request.state.request_id, problem)

    return answer
