"""The one import of faiss, with one clear line where it is missing; and its files."""

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


def coarse_of(ivf: Any) -> Any:
    """The coarse quantizer of lists by its own type; the attribute alone hides a graph's."""
    return load_faiss().downcast_index(ivf.quantizer)


def write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index; raises IndexFolderError where the disk does not take it."""
    try:
        load_faiss().write_index(index, str(path))
    except RuntimeError as error:
        raise IndexFolderError(
            f"{path}: cannot be written ({error}); mend the disk, then run again to continue"
        ) from error


def read_faiss(path: Path, flags: int = 0) -> Any:
    """Read a faiss index, by faiss's IO flags; raises IndexFolderError when missing or damaged."""
    if not path.is_file():
        raise IndexFolderError(f"{path}: missing")
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise IndexFolderError(f"{path}: damaged, faiss cannot read it") from error
    return index


def require_rows(index: Any, num_rows: int, path: Path) -> None:
    """Refuse an index whose lists hold another number of rows; raises IndexFolderError."""
    stored = index.ntotal
    if isinstance(index, load_faiss().IndexIVF):
        # Summed by faiss: to ask for the sizes of 4,096 lists from here takes 27 ms.
        stored = index.invlists.compute_ntotal() if index.ntotal == num_rows else index.ntotal
    if stored != num_rows:
        raise IndexFolderError(f"{path}: holds {stored} rows instead of {num_rows}")
