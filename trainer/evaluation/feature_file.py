"""A file of ready-made embeddings: .npy with a list of photos beside it, Parquet, or a pickle.

n rows, D embedding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError
from multigrain.photo_list import read_photo_list
from trainer.protocols.plain_pickle import read_plain_pickle

Values = npt.NDArray[np.floating[Any]]


class FeatureError(MultiGrainError):
    """Embeddings that cannot be read, or are not what a test set needs."""


class FeatureFile(NamedTuple):
    """Rows float [n, D], of any length, and the names of each row's photo: paths as written."""

    rows: Values
    names: Sequence[Sequence[str]]


def read_feature_file(path: Path) -> FeatureFile:
    """Read `x.npy` [n, D] with `x.jsonl`, `x.parquet`, or a pickle of path -> [D].

    `x.jsonl` has a row of `path`, and `paths` where a photo has several names, for each row of
    the array; Parquet has the columns `path` (or `paths`) and `embedding`. `index.export` writes
    both. Of a pickle only plain containers and arrays are read. Raises FeatureError, and
    ProtocolError for a pickle of anything else.
    """
    if path.suffix not in _READERS:
        raise FeatureError(f"--features {path}: give a name that ends in {', '.join(_READERS)}")
    try:
        rows, names = _READERS[path.suffix](path)
    except OSError as error:
        raise FeatureError(f"--features {path} cannot be read ({error})") from error
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating) or 0 in rows.shape:  # noqa: PLR2004
        raise FeatureError(f"--features {path}: {rows.dtype} {list(rows.shape)}, not floats [n, D]")
    if len(rows) != len(names):
        raise FeatureError(f"--features {path}: {len(rows)} rows, but photos for {len(names)}")
    return FeatureFile(rows, names)


def _read_npy(path: Path) -> FeatureFile:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise FeatureError(f"--features {path} is not an array of .npy ({error})") from error
    beside = path.with_suffix(".jsonl")
    if not beside.is_file():
        raise FeatureError(f"--features {path}: its list of photos {beside} is missing")
    listed = read_photo_list(beside)
    return FeatureFile(rows, [_names(one.path, one.attributes.get("paths")) for one in listed])


def _read_parquet(path: Path) -> FeatureFile:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise FeatureError(
            f"{path}: reading Parquet needs pyarrow: pip install 'multigrain-retrieval[parquet]'"
        ) from None
    try:
        table = parquet.read_table(path)
    except pa.ArrowException as error:
        raise FeatureError(f"--features {path} is not Parquet ({error})") from error
    columns = set(table.column_names)
    if "embedding" not in columns or not columns & {"path", "paths"}:
        raise FeatureError(f"--features {path}: it has no columns `embedding` and `path`")
    several = table["paths"].to_pylist() if "paths" in columns else [None] * len(table)
    first = table["path"].to_pylist() if "path" in columns else [None] * len(table)
    rows = _stacked(path, table["embedding"].to_numpy(zero_copy_only=False))
    return FeatureFile(rows, [_names(*pair) for pair in zip(first, several, strict=True)])


def _read_pickle(path: Path) -> FeatureFile:
    loaded = read_plain_pickle(path)
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise FeatureError(f"--features {path}: not a dictionary of path -> embedding")
    return FeatureFile(_stacked(path, loaded.values()), [(name,) for name in loaded])


_READERS: Mapping[str, Callable[[Path], FeatureFile]] = {
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
}


def _stacked(path: Path, rows: Iterable[Any]) -> Values:
    """Rows [n, D] of as many arrays or lists; of one row in an array of its own [1, D] too."""
    try:
        return np.stack([np.asarray(row, np.float32).reshape(-1) for row in rows])
    except (TypeError, ValueError) as error:
        raise FeatureError(f"--features {path}: embeddings of one length ({error})") from error


def _names(first: object, several: object) -> tuple[str, ...]:
    """The names of a row; none where the file gives nothing that is one."""
    found = several if isinstance(several, list) else [first]
    return tuple(name for name in found if isinstance(name, str))
