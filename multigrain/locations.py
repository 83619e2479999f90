"""Where something lies: a path on this machine, or an address in an object store."""

import re
from pathlib import Path
from typing import Annotated, Any, NewType

from pydantic import BeforeValidator

# Such as "s3://bucket/photos": what fsspec knows how to reach.
Url = NewType("Url", str)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(text: str) -> bool:
    """Whether a text is an address; an absolute path never is one."""
    return _SCHEME.match(text) is not None


def to_location(value: Any) -> Any:
    """A text as a path or an address; anything else, paths too, stays what it is."""
    if not isinstance(value, str):
        return value
    return Url(value.rstrip("/")) if is_url(value) else Path(value)


# A setting that takes both.
Location = Annotated[Path | Url, BeforeValidator(to_location)]


def joined(base: Path | Url, path: str) -> Path | Url:
    """What lies at a relative path below a location."""
    return base / path if isinstance(base, Path) else Url(f"{base}/{path}")
