"""Lists made of other lists: codes are copied, not encoded again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_module import load_faiss, write_faiss


def merge_codes(
    trained: Path, sources: Sequence[Path], target: Path, *, live: NDArray[np.bool_]
) -> bool:
    """Write the live codes of several files of lists as one; `live` has a flag for each id.

    The lists come out as if the live rows had been encoded in this order, which merge_from and
    remove_ids would not give: remove_ids fills a hole with a list's last code, and a file that
    has to be made again from its rows could not be compared with its checksum. Gives False,
    and writes nothing, for lists whose codes do not lie one behind the other (x4fs). Raises
    IndexFolderError for a file of another codebook.
    """
    faiss = load_faiss()
    merged = faiss.read_index(str(trained))
    for source in sources:
        part = faiss.read_index(str(source))
        if not isinstance(faiss.downcast_InvertedLists(part.invlists), faiss.ArrayInvertedLists):
            return False
        _require_same_codebook(merged, part, source)
        for number in range(merged.nlist):
            _copy_list(part.invlists, merged.invlists, number, live)
    merged.ntotal = merged.invlists.compute_ntotal()
    write_faiss(merged, target)
    return True


def _copy_list(source: Any, target: Any, number: int, live: NDArray[np.bool_]) -> None:
    faiss = load_faiss()
    size = source.list_size(number)
    if not size:
        return
    ids = faiss.rev_swig_ptr(source.get_ids(number), size)
    codes = faiss.rev_swig_ptr(source.get_codes(number), size * source.code_size)
    kept = live[ids]
    ids = np.ascontiguousarray(ids[kept])
    codes = np.ascontiguousarray(codes.reshape(size, source.code_size)[kept])
    if len(ids):
        target.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))


def _require_same_codebook(merged: Any, part: Any, path: Path) -> None:
    # faiss compares sizes and types, not the centroids the codes belong to.
    try:
        merged.check_compatible_for_merge(part)
        is_same = np.array_equal(
            merged.quantizer.reconstruct_n(0, merged.nlist),
            part.quantizer.reconstruct_n(0, part.nlist),
        )
    except RuntimeError as error:
        raise IndexFolderError(f"{path}: of another codebook ({error})") from error
    if not is_same:
        raise IndexFolderError(f"{path}: its centroids are not the codebook's")
