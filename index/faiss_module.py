"""The one import of faiss, with one clear line where it is missing; and writing its files."""

from pathlib import Path
from typing import Any

from index.errors import FaissMissingError, IndexFolderError


def load_faiss() -> Any:
    """The module faiss; raises FaissMissingError."""
    try:
        import faiss
    except ImportError as error:
        raise FaissMissingError from error
    return faiss


def write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index; raises IndexFolderError where the disk does not take it."""
    try:
        load_faiss().write_index(index, str(path))
    except RuntimeError as error:
        raise IndexFolderError(
            f"{path}: cannot be written ({error}); mend the disk, then run again to continue"
        ) from error
