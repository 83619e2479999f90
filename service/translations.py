"""What an exception of any room says to a client."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from index.errors import (
    ChangesRefusedError,
    IndexFolderError,
    NotWriterError,
    OnlyReadError,
    RecallNotReachedError,
)
from multigrain.photo import PhotoError
from service.batching.batch_errors import (
    ClientLimitError,
    DeadlineExceededError,
    EngineDeadError,
    QueueFullError,
)
from service.errors import (
    CLIENT_GONE_STATUS,
    INTERNAL,
    ClientGoneError,
    Fault,
    ProblemError,
    faults_of,
    problem_response,
    validation_problem,
)

logger = logging.getLogger(__name__)

_CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


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
