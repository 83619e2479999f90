"""The JSON of stored photos."""

from pydantic import BaseModel, JsonValue


class Image(BaseModel):
    """A photo of the index; `taken_at` is the camera's clock, YYYY-MM-DDTHH:MM:SS."""

    id: str
    uri: str
    thumbnail_url: str
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    taken_at: str | None
    camera: str | None
    metadata: dict[str, JsonValue]


class ImagePage(BaseModel):
    """Answer of GET /images: photos by id; `next_cursor` is null on the last page."""

    generation: str
    images: list[Image]
    count: int
    next_cursor: str | None


class AddedImage(BaseModel):
    """Answer of POST /images."""

    id: str
    thumbnail_url: str
