"""A line of the journal of adds and deletes: a JSON object that ends in its own checksum."""

import json
import zlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from index.errors import IndexFolderError

_CHECKSUM = b',"crc32":'


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentStart(_Record):
    """A segment's first line: the id of its first row, and the model that makes its rows."""

    kind: Literal["segment"] = "segment"
    first_id: int
    fingerprint: str
    D: int


class Added(_Record):
    """New bytes under a new id, with what a catalog says of them.

    Its row is the segment's, by id; `row_crc32` is the checksum of the row's bytes.
    """

    kind: Literal["add"] = "add"
    id: int
    sha256: str
    row_crc32: int
    num_bytes: int
    width: int
    height: int
    format: str
    taken_at: str | None = None
    camera: str | None = None
    metadata: dict[str, JsonValue] = {}


class Linked(_Record):
    """Live bytes that were added again: a path in uploads/, and the attributes it has from now."""

    kind: Literal["path"] = "path"
    id: int
    sha256: str
    num_bytes: int
    metadata: dict[str, JsonValue] = {}


class Deleted(_Record):
    """Bytes that are to stay away, and the id they had."""

    kind: Literal["delete"] = "delete"
    id: int
    sha256: str


Change = Added | Linked | Deleted
Record = SegmentStart | Added | Linked | Deleted
_records: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def to_line(record: Record) -> bytes:
    """The record as its line; raises IndexFolderError for metadata that no line can keep."""
    try:
        text = json.dumps(record.model_dump(), allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise _not_kept(error) from error
    body = text.encode()
    line = b"%b%b%d}\n" % (body[:-1], _CHECKSUM, zlib.crc32(body))
    # Half a surrogate pair is written and cannot be read.
    if from_line(line) != record:
        raise _not_kept("it does not read back as it was")
    return line


def _not_kept(reason: Any) -> IndexFolderError:
    return IndexFolderError(f"metadata is not JSON that can be kept: {reason}")


def from_line(line: bytes) -> Record | None:
    """The record of a line with its newline; None for one that is cut or damaged."""
    head, found, checksum = line.rpartition(_CHECKSUM)
    body = head + b"}"
    if not found or checksum != b"%d}\n" % zlib.crc32(body):
        return None
    try:
        return _records.validate_json(body)
    except ValidationError:
        return None
