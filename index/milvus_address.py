"""Where a Milvus is: an address, which is written down without secrets, or Milvus Lite's file."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from index.errors import IndexFolderError

_FORM = "http://USER:PASSWORD@HOST:19530, or a file NAME.db for Milvus Lite"
_PORT = 19530


class MilvusAddress(NamedTuple):
    """What may be shown and written down, and the token, which may not."""

    uri: str
    token: str = ""

    @property
    def file(self) -> Path | None:
        """The file of a Milvus Lite; None for a server."""
        return None if "://" in self.uri else Path(self.uri)


def parse_address(text: str) -> MilvusAddress:
    """Take an address apart; raises IndexFolderError, without saying what was given."""
    if "://" not in text:
        if not text.endswith(".db"):
            raise IndexFolderError(f"--milvus-uri: not an address like {_FORM}")
        return MilvusAddress(str(Path(text).absolute()))
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise IndexFolderError(f"--milvus-uri: not an address like {_FORM}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise IndexFolderError(f"--milvus-uri: not an address like {_FORM}")
    return MilvusAddress(_bare(parts, port), _token(parts))


def _bare(parts: SplitResult, port: int | None) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = port or (443 if parts.scheme == "https" else _PORT)
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _token(parts: SplitResult) -> str:
    """USER:PASSWORD as Milvus takes it, or a lone token in front of the host."""
    words = (parts.username, parts.password)
    return ":".join(unquote(word) for word in words if word)
