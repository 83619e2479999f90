"""Lists of photos: CSV or JSONL with a `path` column, read alike by trainer and index."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from multigrain.errors import MultiGrainError

_SUFFIXES = (".csv", ".jsonl")


class PhotoListError(MultiGrainError):
    """A list that cannot be read, with the row that is wrong."""


class ListedPhoto(NamedTuple):
    """A row: its path as written, relative to the list's folder, and its other columns."""

    path: str
    attributes: dict[str, Any]


def is_photo_list(path: Path) -> bool:
    """Whether a path names a list, by its suffix: .csv or .jsonl."""
    return path.suffix.lower() in _SUFFIXES


def read_photo_list(path: Path) -> Iterator[ListedPhoto]:
    """Every row in file order; raises PhotoListError naming the row that has no usable `path`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True) if _is_csv(path) else _objects(path, file)
            for number, row in enumerate(rows, start=1):
                yield _listed(path, number, dict(row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhotoListError(f"{path}: cannot be read as a list ({error})") from error


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _objects(path: Path, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate((line for line in lines if line.strip()), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of too many digits, deep lists
            raise PhotoListError(f"{path}, row {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise PhotoListError(f"{path}, row {number}: not a JSON object")
        yield row


def _listed(path: Path, number: int, row: dict[str, Any]) -> ListedPhoto:
    if None in row:
        raise PhotoListError(f"{path}, row {number}: more columns than the first line names")
    name = row.pop("path", None)
    if not isinstance(name, str) or not name or "\0" in name or not is_utf8(name):
        raise PhotoListError(f"{path}, row {number}: no `path`, or not UTF-8")
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # half of a surrogate pair: UnicodeEncodeError
        raise PhotoListError(f"{path}, row {number}: not JSON as all read it ({error})") from error
    return ListedPhoto(name, row)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
