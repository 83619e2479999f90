"""A complete multipart body taken apart in memory: no temporary files, nothing half parsed.

Starlette's own form parsing keeps the last of two equal parts, accepts a body that breaks off,
and spools to disk; here each of these is refused or not done.
"""

from typing import NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import ProblemError

MAX_PARTS = 16


class Part(NamedTuple):
    """One part of a form; a file name is neither needed nor believed."""

    name: str
    data: bytes


def parse_multipart(content_type: str, body: bytes, *, max_parts: int = MAX_PARTS) -> list[Part]:
    """Return the parts in the order sent; raises ProblemError malformed_multipart."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("Content-Type names no boundary")
    collector = _Collector(max_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_end": collector.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)) from error
    if not collector.complete:
        raise _malformed("the body ends before its closing boundary")
    return collector.parts


def _malformed(reason: str) -> ProblemError:
    return ProblemError("malformed_multipart", f"the multipart body cannot be read: {reason}")


class _Collector:
    """Gathers what the parser calls out; a slice of the body comes as (data, start, end)."""

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self.parts: list[Part] = []
        self.complete = False
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._data = bytearray()

    def on_part_begin(self) -> None:
        if len(self.parts) == self._max_parts:
            raise _malformed(f"more than {self._max_parts} parts")
        self._disposition = b""
        self._data = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.extend(data[start:end])

    def on_part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if not name:
            raise _malformed("a part has no name")
        self.parts.append(Part(name.decode("utf-8", "replace"), bytes(self._data)))

    def on_end(self) -> None:
        self.complete = True
