"""Every way a request can fail, as one table of codes and one shape of answer (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse

from multigrain.errors import MultiGrainError

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
