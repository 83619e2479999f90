"""Metadata of a collection as JSON that every client can read."""

import math

from pydantic import JsonValue


def plain_json(value: JsonValue) -> JsonValue:
    """The same value without what JSON in UTF-8 cannot say.

    Half a surrogate pair becomes U+FFFD, NaN and the infinities become null. A catalog may hold
    both: Python's own json writes and reads them.
    """
    match value:
        case str():
            return plain_text(value)
        case float() if not math.isfinite(value):
            return None
        case list():
            return [plain_json(item) for item in value]
        case dict():
            return {plain_text(key): plain_json(item) for key, item in value.items()}
    return value


def plain_text(text: str) -> str:
    """The same text with U+FFFD for each lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
