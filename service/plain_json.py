"""Metadata of a collection as JSON that every client can read."""

import math

from pydantic import JsonValue

# Readers of JSON give up at some depth, pydantic at 255.
MAX_DEPTH = 100


def plain_json(value: JsonValue, depth: int = 0) -> JsonValue:
    """The same value without what JSON in UTF-8 cannot say, or not to everybody.

    Half a surrogate pair becomes U+FFFD; NaN, the infinities and what lies deeper than MAX_DEPTH
    become null. A catalog may hold all of them: Python's own json writes and reads them.
    """
    match value:
        case str():
            return plain_text(value)
        case float() if not math.isfinite(value):
            return None
        case list() | dict() if depth == MAX_DEPTH:
            return None
        case list():
            return [plain_json(item, depth + 1) for item in value]
        case dict():
            return {plain_text(key): plain_json(item, depth + 1) for key, item in value.items()}
    return value


def plain_text(text: str) -> str:
    """The same text with U+FFFD for each lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
