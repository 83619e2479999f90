"""What a file of lists holds, for checking; and an empty index made of a full one."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_module import load_faiss, write_faiss


def count_rows(path: Path) -> int:
    """How many rows a file of lists says it holds; raises IndexFolderError for a broken one."""
    index = _read(path, load_faiss().IO_FLAG_MMAP)
    lists = _lists(index)
    if lists is None:
        return int(index.ntotal)
    return sum(lists.list_size(number) for number in range(index.nlist))


def held_ids(path: Path) -> NDArray[np.int64] | None:
    """The ids in a file's lists, ascending, int64; None for Flat lists, which hold no ids."""
    faiss = load_faiss()
    index = _read(path, 0)
    lists = _lists(index)
    if lists is None:
        return None
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    ids = [
        faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
        for number, size in enumerate(sizes)
        if size
    ]
    return np.sort(np.concatenate(ids)) if ids else np.empty(0, np.int64)


def write_empty(lists: Path, target: Path) -> None:
    """Write the trained, empty index that a file of lists was made with."""
    index = _read(lists, 0)
    index.reset()
    write_faiss(index, target)


def _read(path: Path, flags: int) -> Any:
    try:
        return load_faiss().read_index(str(path), flags)
    except RuntimeError as error:
        raise IndexFolderError(f"{path}: damaged, faiss cannot read it") from error


def _lists(index: Any) -> Any | None:
    return index.invlists if isinstance(index, load_faiss().IndexIVF) else None
