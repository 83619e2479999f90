"""The one import of faiss, with one clear line where it is missing."""

from typing import Any

from index.errors import FaissMissingError


def load_faiss() -> Any:
    """The module faiss; raises FaissMissingError."""
    try:
        import faiss
    except ImportError as error:
        raise FaissMissingError from error
    return faiss
