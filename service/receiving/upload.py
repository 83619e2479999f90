"""A request's body: received within its bounds, and the photos and fields in it."""

import asyncio
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from service.errors import ClientGoneError, Fault, ProblemError, validation_problem
from service.receiving.multipart import MAX_PARTS, parse_multipart

MAX_FIELD_BYTES = 4096
# Of one form of several photos.
MAX_PHOTOS = 32


class Upload(NamedTuple):
    """Bytes of the photo, and the form fields sent beside it."""

    photo: bytes
    fields: tuple[tuple[str, str], ...] = ()


class Form(NamedTuple):
    """Bytes of the photos of a form, which may be empty, and its fields."""

    photos: tuple[bytes, ...]
    fields: tuple[tuple[str, str], ...]


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


def media_type_of(content_type: str) -> str:
    """The type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def read_upload(content_type: str, body: bytes) -> Upload:
    """Find the photo in a body: the part `image` of a form, or else the body itself.

    A raw body is a photo under any Content-Type but JSON: its bytes decide, as everywhere
    (`curl --data-binary` calls them application/x-www-form-urlencoded). Raises ProblemError.
    """
    media_type = media_type_of(content_type)
    if media_type == "multipart/form-data":
        return _from_form(content_type, body)
    if media_type == "application/json" or media_type.startswith("multipart/"):
        detail = f"{media_type} cannot be searched: send the photo as multipart/form-data or raw"
        raise ProblemError("unsupported_media_type", detail)
    if not body and not media_type:
        raise _no_image("the request has no body")
    return Upload(not_empty(body))


def _from_form(content_type: str, body: bytes) -> Upload:
    form = read_form(content_type, body)
    if len(form.photos) > 1:
        raise ProblemError(
            "duplicate_image_part", f"{len(form.photos)} parts are named 'image'; send one"
        )
    return Upload(not_empty(form.photos[0]), form.fields)


def read_photos(content_type: str, body: bytes) -> Form:
    """The photos of a form that may hold several, each perhaps empty; raises ProblemError."""
    media_type = media_type_of(content_type)
    if media_type != "multipart/form-data":
        detail = f"{media_type or 'no media type'}: send the photos as multipart/form-data"
        raise ProblemError("unsupported_media_type", detail)
    form = read_form(content_type, body, max_parts=MAX_PHOTOS + MAX_PARTS)
    if len(form.photos) > MAX_PHOTOS:
        msg = f"{len(form.photos)} photos, at most {MAX_PHOTOS} in one request"
        raise validation_problem([Fault("body.image", msg)])
    return form


def read_form(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> Form:
    """The parts `image` of a form, at least one, and its fields; raises ProblemError."""
    parts = parse_multipart(content_type, body, max_parts=max_parts)
    photos = tuple(part.data for part in parts if part.name == "image")
    if not photos:
        names = ", ".join(repr(part.name[:64]) for part in parts) or "none"
        raise _no_image(f"the form has no part 'image'; its parts: {names}")
    fields = [part for part in parts if part.name != "image"]
    for part in fields:
        if len(part.data) > MAX_FIELD_BYTES:
            detail = f"a field has {len(part.data)} bytes, the limit is {MAX_FIELD_BYTES}"
            raise ProblemError("malformed_multipart", detail)
    return Form(photos, tuple((part.name, part.data.decode("utf-8", "replace")) for part in fields))


def not_empty(photo: bytes) -> bytes:
    """The photo itself; raises ProblemError empty_image where there are no bytes."""
    if not photo:
        raise ProblemError("empty_image", "the photo is empty (0 bytes)")
    return photo


def _no_image(reason: str) -> ProblemError:
    return validation_problem([Fault("body.image", f"a photo is required: {reason}")])


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        "payload_too_large", f"the body is larger than the limit of {max_bytes} bytes"
    )
