"""The photo and the parameters of a search request, taken from its body."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from service.errors import ClientGoneError, Fault, ProblemError, faults_of, validation_problem
from service.multipart import parse_multipart
from service.schemas import SearchOptions

MAX_FIELD_BYTES = 4096


class Upload(NamedTuple):
    """Bytes of the photo, and the form fields sent beside it."""

    photo: bytes
    fields: tuple[tuple[str, str], ...] = ()


async def receive_body(request: Request, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """Read the whole body; raises ProblemError payload_too_large or body_timeout.

    A Content-Length over the limit is refused before a byte is read; a body without one, or
    with a false one, as soon as it passes the limit.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        detail = f"the body did not arrive within {timeout_seconds:g} s"
        raise ProblemError("body_timeout", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)


def read_upload(content_type: str, body: bytes) -> Upload:
    """Find the photo in a body: the part `image` of a form, or else the body itself.

    A raw body is a photo under any Content-Type but JSON: its bytes decide, as everywhere
    (`curl --data-binary` calls them application/x-www-form-urlencoded). Raises ProblemError.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return _from_form(content_type, body)
    if media_type == "application/json" or media_type.startswith("multipart/"):
        detail = f"{media_type} cannot be searched: send the photo as multipart/form-data or raw"
        raise ProblemError("unsupported_media_type", detail)
    if not body and not media_type:
        raise _no_image("the request has no body")
    return Upload(_not_empty(body))


def _from_form(content_type: str, body: bytes) -> Upload:
    parts = parse_multipart(content_type, body)
    photos = [part.data for part in parts if part.name == "image"]
    if not photos:
        names = ", ".join(repr(part.name[:64]) for part in parts) or "none"
        raise _no_image(f"the form has no part 'image'; its parts: {names}")
    if len(photos) > 1:
        raise ProblemError(
            "duplicate_image_part", f"{len(photos)} parts are named 'image'; send one"
        )
    fields = [part for part in parts if part.name != "image"]
    for part in fields:
        if len(part.data) > MAX_FIELD_BYTES:
            detail = f"a field has {len(part.data)} bytes, the limit is {MAX_FIELD_BYTES}"
            raise ProblemError("malformed_multipart", detail)
    return Upload(
        _not_empty(photos[0]),
        tuple((part.name, part.data.decode("utf-8", "replace")) for part in fields),
    )


def _not_empty(photo: bytes) -> bytes:
    if not photo:
        raise ProblemError("empty_image", "the photo is empty (0 bytes)")
    return photo


def _no_image(reason: str) -> ProblemError:
    return validation_problem([Fault("body.image", f"a photo is required: {reason}")])


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        "payload_too_large", f"the body is larger than the limit of {max_bytes} bytes"
    )


def refuse_repeats(pairs: Sequence[tuple[str, str]], place: str) -> None:
    """Refuse a parameter sent twice, of which frameworks silently keep one."""
    repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if repeated:
        raise validation_problem([Fault(f"{place}.{name}", "sent twice") for name in repeated])


def merge_options(in_query: SearchOptions, fields: Sequence[tuple[str, str]]) -> SearchOptions:
    """Add the form's parameters to the query string's; one sent in both is refused."""
    refuse_repeats(fields, "form")
    try:
        in_form = SearchOptions.model_validate(dict(fields))
    except ValidationError as error:
        raise validation_problem(faults_of(error.errors(), "form")) from error
    twice = in_query.model_fields_set & in_form.model_fields_set
    if twice:
        msg = "sent in the query string and in the form"
        raise validation_problem([Fault(f"form.{name}", msg) for name in sorted(twice)])
    return in_query.model_copy(update=in_form.model_dump(exclude_unset=True))
