"""What /openapi.json says beside each route's own words: keys, headers, examples of problems."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.access import ACCESS, Access
from service.errors import KINDS, PROBLEM_MEDIA_TYPE, ProblemError, problem_document
from service.settings import Settings

Document = dict[str, Any]

_EXAMPLE_ID = "01890f3e9c6b4a5d8f27"
_METHODS = ("get", "post", "delete")
_REQUEST_ID = {
    "description": "that of the request, where it is of this form, else one of the service",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    "required": True,
}
_RETRY_AFTER = {
    "description": "whole seconds until another try is worth it",
    "schema": {"type": "integer", "minimum": 1},
    "required": True,
}
_SERVER_TIMING = {
    "description": "milliseconds of each stage, `decode;dur=12.4, ...`, and their `total`",
    "schema": {"type": "string"},
    "required": True,
}
_GENERATION = {
    "description": "the generation of the index that answered",
    "schema": {"type": "string"},
    "required": True,
}
_LOCATION = {
    "description": "where to ask for it",
    "schema": {"type": "string"},
    "required": True,
}
_ETAG = {
    "description": "for If-None-Match",
    "schema": {"type": "string"},
    "required": True,
}
_CHALLENGE = {"schema": {"type": "string", "const": "Bearer"}, "required": True}

_TIMED = {"Server-Timing": _SERVER_TIMING}
_FOUND = _TIMED | {"X-Index-Generation": _GENERATION}
# Of the answers that are no problems, by the route and the status.
_HEADERS: Mapping[tuple[str, str], Mapping[str, Document]] = {
    ("/search", "200"): _FOUND,
    ("/search/batch", "200"): _TIMED,
    ("/embed", "200"): _TIMED,
    ("/images", "200"): {"X-Index-Generation": _GENERATION},
    ("/images", "201"): {"Location": _LOCATION},
    ("/images/{image_id}/similar", "200"): _FOUND,
    ("/images/{image_id}/thumbnail", "200"): {"ETag": _ETAG},
    ("/images/{image_id}/thumbnail", "304"): {"ETag": _ETAG},
    ("/index", "200"): {"X-Index-Generation": _GENERATION},
    ("/admin/reload", "202"): {"Location": _LOCATION},
}
_PROBLEM_HEADERS: Mapping[str, Mapping[str, Document]] = {
    "401": {"WWW-Authenticate": _CHALLENGE},
    "429": {"Retry-After": _RETRY_AFTER},
    "503": {"Retry-After": _RETRY_AFTER},
}
_SCHEMES: Mapping[Access, Mapping[str, Document]] = {
    Access.READ: {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    },
    Access.ADMIN: {
        "admin_key": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "one of --admin-key; it opens every route",
        },
        "admin_bearer": {"type": "http", "scheme": "bearer", "description": "the same key"},
    },
}


def complete(document: Document, settings: Settings) -> None:
    """Add to FastAPI's own description what holds for many routes at once."""
    asked = [Access.ADMIN, *([Access.READ] if settings.api_key else [])]
    schemes = {name: scheme for access in asked for name, scheme in _SCHEMES[access].items()}
    document["components"]["securitySchemes"] = schemes
    for method, path, operation in _operations(document):
        access = ACCESS[method, path]
        if access in asked:
            operation["security"] = [{name: []} for name in _SCHEMES[access]]
        else:
            operation["responses"].pop("401", None)
        for status, response in operation["responses"].items():
            _complete_response(path, status, response)


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def _complete_response(path: str, status: str, response: Document) -> None:
    headers = {"X-Request-ID": _REQUEST_ID, **_HEADERS.get((path, status), {})}
    problem = response.get("content", {}).get(PROBLEM_MEDIA_TYPE)
    if problem is not None:
        headers |= _PROBLEM_HEADERS.get(status, {})
        codes = response["description"].replace("`", "").split(", ")
        problem["examples"] = {code: {"value": _example(code)} for code in codes}
    response["headers"] = headers


def _example(code: str) -> Document:
    return problem_document(_EXAMPLE_ID, ProblemError(code, KINDS[code].title))
