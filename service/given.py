"""What the body of a search holds: a photo, or an embedding, and the form's fields."""

from typing import NamedTuple

from service.errors import Fault, ProblemError, validation_problem
from service.json_body import EMBEDDING, URL, embedding_of, photo_of, read_json
from service.queries import Embedding
from service.upload import Upload, media_type_of, not_empty, read_upload


class Given(NamedTuple):
    """A photo's bytes or a unit embedding, and the fields sent beside it."""

    photo: bytes | None
    embedding: Embedding | None = None
    fields: tuple[tuple[str, str], ...] = ()


def read_given(content_type: str, body: bytes, *, dim: int) -> Given:
    """Take a body apart, a form, JSON or the photo itself; raises ProblemError."""
    if media_type_of(content_type) != "application/json":
        return _from_upload(read_upload(content_type, body))
    key, value = read_json(body)
    if key == URL:
        raise ProblemError("image_url_disabled", "send the photo itself: nothing is fetched")
    if key == EMBEDDING:
        return Given(None, embedding_of(value, dim=dim))
    return Given(not_empty(photo_of(value)))


def read_photo(content_type: str, body: bytes, *, dim: int) -> Given:
    """The same, but an embedding is refused."""
    given = read_given(content_type, body, dim=dim)
    if given.photo is None:
        raise validation_problem([Fault(f"body.{EMBEDDING}", "a photo is wanted")])
    return given


def _from_upload(upload: Upload) -> Given:
    return Given(upload.photo, fields=upload.fields)
