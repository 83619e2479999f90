"""What the body of a search holds: a photo, or an embedding, and the form's fields."""

from typing import NamedTuple

from service.batching.queries import Embedding
from service.errors import Fault, ProblemError, validation_problem
from service.receiving.json_body import (
    EMBEDDING,
    IMAGE,
    URL,
    embedding_of,
    photo_of,
    read_json,
    url_of,
)
from service.receiving.upload import Upload, media_type_of, not_empty, read_upload


class Given(NamedTuple):
    """A photo's bytes, a unit embedding or a photo's address, and the fields sent beside it."""

    photo: bytes | None
    embedding: Embedding | None = None
    url: str | None = None
    fields: tuple[tuple[str, str], ...] = ()


def read_given(content_type: str, body: bytes, *, dim: int, urls: bool) -> Given:
    """Take a body apart, a form, JSON or the photo itself; raises ProblemError."""
    if media_type_of(content_type) == "application/json":
        return _from_json(body, dim=dim, urls=urls)
    upload = read_upload(content_type, body)
    return Given(upload.photo, fields=upload.fields)


def _from_json(body: bytes, *, dim: int, urls: bool) -> Given:
    key, value = read_json(body)
    if key == URL and not urls:
        raise _disabled()
    if key == URL:
        return Given(None, url=url_of(value))
    if key == EMBEDDING:
        return Given(None, embedding_of(value, dim=dim))
    return Given(not_empty(photo_of(value)))


def read_photo(content_type: str, body: bytes) -> Upload:
    """The photo of a body and the fields beside it; an embedding is refused."""
    if media_type_of(content_type) != "application/json":
        return read_upload(content_type, body)
    key, value = read_json(body)
    if key == IMAGE:
        return Upload(not_empty(photo_of(value)))
    if key == URL:
        raise _disabled()
    raise validation_problem([Fault(f"body.{EMBEDDING}", "a photo is wanted")])


def _disabled() -> ProblemError:
    return ProblemError("image_url_disabled", "send the photo itself: nothing is fetched")
