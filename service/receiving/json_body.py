"""A JSON body: one photo in base64, or one embedding.

Letters: D embedding.
"""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from service.errors import Fault, ProblemError, validation_problem

IMAGE = "image_base64"
EMBEDDING = "embedding"
URL = "image_url"


def read_json(body: bytes) -> tuple[str, Any]:
    """The one key of a JSON body, and its value; raises ProblemError malformed_json, validation."""
    try:
        document = from_json(body)
    except ValueError as error:
        raise ProblemError("malformed_json", f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _invalid("body", f"an object is wanted, with {IMAGE} or {EMBEDDING}")
    unknown = document.keys() - {IMAGE, EMBEDDING, URL}
    if unknown:
        raise _invalid(f"body.{min(unknown)[:64]}", "unknown; parameters stand in the query string")
    if len(document) != 1:
        raise _invalid("body", f"give one of {IMAGE} and {EMBEDDING}")
    return next(iter(document.items()))


def photo_of(value: Any) -> bytes:
    """The bytes of a photo in base64, with or without `data:image/...;base64,` before it.

    Raises ProblemError bad_base64 or validation.
    """
    if not isinstance(value, str):
        raise _invalid(f"body.{IMAGE}", "a text is wanted")
    if value.startswith("data:"):
        _, is_data, value = value.partition(";base64,")
        if not is_data:
            raise ProblemError("bad_base64", "the data: URI does not say ;base64,")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError("bad_base64", f"{IMAGE} is no base64: {error}") from error


def url_of(value: Any) -> str:
    """Where a photo is said to be; raises ProblemError validation."""
    if not isinstance(value, str):
        raise _invalid(f"body.{URL}", "a text is wanted")
    return value


def embedding_of(value: Any, *, dim: int) -> NDArray[np.float32]:
    """An embedding scaled to unit length, fp32 [D]; raises ProblemError embedding_invalid."""
    if not isinstance(value, list) or len(value) != dim:
        given = f"{len(value)} numbers" if isinstance(value, list) else type(value).__name__
        raise _bad_embedding(f"{dim} numbers are wanted, this is {given}")
    if any(type(number) not in (int, float) for number in value):
        raise _bad_embedding("it holds something that is no number")
    try:
        row = np.array(value, dtype=np.float64)
    except OverflowError:
        raise _bad_embedding("it holds a number that is too large") from None
    largest = np.abs(row).max()
    if not np.isfinite(largest):
        raise _bad_embedding("it holds a number that is not finite")
    if largest == 0:
        raise _bad_embedding("it is zero, which has no direction")
    row /= largest  # so that no square overflows
    return (row / np.linalg.norm(row)).astype(np.float32)


def _bad_embedding(reason: str) -> ProblemError:
    detail = f"the embedding cannot be searched with: {reason}"
    return ProblemError("embedding_invalid", detail, faults=[Fault(f"body.{EMBEDDING}", reason)])


def _invalid(loc: str, msg: str) -> ProblemError:
    return validation_problem([Fault(loc, msg)])
