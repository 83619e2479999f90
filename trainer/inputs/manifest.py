"""Read a manifest: CSV, JSONL or Parquet with the columns path, label, split and group."""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multigrain.photo_list import (
    ListedPhoto,
    PhotoListError,
    is_photo_list,
    is_utf8,
    read_photo_list,
)
from trainer.inputs.photo_set import FileStore
from trainer.inputs.photo_sources import LabelsError, Say, Source, few

COLUMNS = ("label", "split", "group")  # beside `path`; each may be absent
TRAIN, VAL = "train", "val"
_SPLITS = {"training": TRAIN, "validation": VAL, "valid": VAL}


def is_manifest(path: Path) -> bool:
    """Whether a path names a manifest, by its suffix."""
    return is_photo_list(path) or _is_parquet(path)


def read_manifest(path: Path, *, say: Say) -> Source:
    """Read a manifest; its relative paths start at its own folder.

    A cell that is empty says nothing. Columns that are not read are said.
    Raises PhotoListError for a file or row that cannot be read, and for a path listed twice:
    two numbers for one photo would be taken for two things. Raises LabelsError for a cell that
    is no name.
    """
    names: list[str] = []
    columns: dict[str, list[str | None]] = {column: [] for column in COLUMNS}
    rows_of: dict[str, int] = {}
    others: dict[str, None] = {}
    for number, row in enumerate(_rows(path), start=1):
        place = posixpath.normpath(row.path)  # ./a.jpg is a.jpg
        if place in rows_of:
            raise PhotoListError(
                f"{path}, row {number}: {row.path!r} is already in row {rows_of[place]}: "
                f"list each photo once"
            )
        rows_of[place] = number
        names.append(row.path)
        for column in COLUMNS:
            cell = _cell(row.attributes.get(column))
            columns[column].append(None if cell is None else _name(path, number, column, cell))
        others |= dict.fromkeys(key for key in row.attributes if key not in COLUMNS)
    if not names:
        raise PhotoListError(f"{path}: no photos in this list")
    if others:
        say(f"{path}: of the columns, {few(list(others))} are not read")
    splits = [_SPLITS.get(split or "", split) for split in columns["split"]]
    _check_splits(path, splits)
    return Source(
        path=path,
        store=FileStore(path.parent, tuple(names)),
        names=tuple(names),
        classes=tuple(columns["label"]),
        groups=tuple(columns["group"]),
        splits=tuple(splits),
    )


def _check_splits(path: Path, splits: list[str | None]) -> None:
    if any(split is not None for split in splits) and None in splits:
        raise LabelsError(
            f"{path}, row {splits.index(None) + 1}: no split, and other rows have one: "
            f"write {TRAIN} or {VAL}"
        )


def _rows(path: Path) -> Iterator[ListedPhoto]:
    return _parquet_rows(path) if _is_parquet(path) else read_photo_list(path)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _parquet_rows(path: Path) -> Iterator[ListedPhoto]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise PhotoListError(
            f"{path}: reading Parquet needs pyarrow: pip install 'multigrain-retrieval[parquet]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    name = row.pop("path", None)
                    if not isinstance(name, str) or not name or "\0" in name or not is_utf8(name):
                        raise PhotoListError(f"{path}, row {number}: no `path`, or not UTF-8")
                    yield ListedPhoto(name, row)
    except (OSError, pa.ArrowException) as error:
        raise PhotoListError(f"{path}: cannot be read as Parquet ({error})") from error


def _cell(value: Any) -> Any:
    return None if value is None or value == "" else value


def _name(path: Path, number: int, column: str, value: Any) -> str:
    """Return a cell as a name: text as it is, a whole number in digits."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise LabelsError(
            f"{path}, row {number}: {column} {value!r} is neither a text nor a whole number"
        )
    return str(value)
