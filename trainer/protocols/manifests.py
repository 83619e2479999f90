"""Test sets of one's own: a list of photos with columns, as CSV or JSONL."""

import posixpath
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multigrain.photo_list import is_photo_list, read_photo_list
from multigrain.truth import Rows, Truth
from trainer.protocols.test_set import (
    PairSet,
    Picture,
    ProtocolError,
    QuerySet,
    Request,
    groups_truth,
    leave_one_out,
)

METRICS = (
    "ap",
    "ap_trapezoid",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "cmc_at_20",
    "map_at_r",
    "r_precision",
    "minp",
)
ROLES = ("query", "gallery", "distractor", "instance")
_ASKED = ("query", "instance")
_FALSE, _TRUE = ("", "0", "false", "no"), ("1", "true", "yes")


def manifest(request: Request) -> QuerySet:
    """Columns path, instance, role (query, gallery, distractor or instance) and junk.

    `instance` is query and gallery at once. No photo is an answer to itself. `junk` of a query
    names gallery paths that do not count for it (a list in JSONL, parted by `;` in CSV); true
    on a gallery row: for no query of its instance. Without a query among the rows every photo
    of an instance is asked for, against all others.
    """
    rows = _rows(request.data, ("instance", "role", "junk"))
    roles = [_role(request.data, number, row) for number, row in enumerate(rows, start=1)]
    pictures, instances = _columns(request.data, rows, "instance")
    for number, (role, instance) in enumerate(zip(roles, instances, strict=True), start=1):
        if role in _ASKED and instance is None:
            raise ProtocolError(f"{request.data}, row {number}: a query without an instance")
        if role == "distractor" and instance is not None:
            raise ProtocolError(f"{request.data}, row {number}: a distractor has no instance")
    gallery = [number for number, role in enumerate(roles) if role != "query"]
    asked = [number for number, role in enumerate(roles) if role in _ASKED]
    queries = asked or [number for number in gallery if instances[number] is not None]
    if not queries or not gallery:
        raise ProtocolError(f"{request.data}: {len(queries)} queries, {len(gallery)} gallery rows")
    truth = groups_truth(
        [instances[number] for number in queries], [instances[number] for number in gallery], None
    )
    junk = _junk(request.data, rows, queries=queries, gallery=gallery, truth=truth)
    options = {"queries": "by role" if asked else "every photo of an instance"}
    return QuerySet(
        pictures,
        np.array(queries, np.int64),
        np.array(gallery, np.int64),
        {"": Truth(truth.relevant, junk)},
        METRICS,
        options=options,
    )


def groups(request: Request) -> QuerySet:
    """Columns path and group (or label), every photo against all others.

    A folder stands for its sub-folders, each a group.
    """
    if request.data.is_dir():
        from trainer.inputs.photos import paths_of

        pictures = [Picture(path) for path in paths_of(request.data)]
        names: list[Hashable] = [
            picture.path.relative_to(request.data).parts[0]
            if picture.path.parent != request.data
            else None
            for picture in pictures
        ]
    else:
        rows = _rows(request.data, ("group", "label"))
        column = "group" if rows and "group" in rows[0] else "label"
        pictures, names = _columns(request.data, rows, column)
    if not any(name is not None for name in names):
        raise ProtocolError(f"{request.data}: no photo has a group: give a column `group`")
    return leave_one_out(pictures, names, METRICS, {"queries": "every photo of a group"})


def verification(request: Request) -> PairSet:
    """Columns path, other and same: whether two photos show the same (1, 0, true, false)."""
    rows = _rows(request.data, ("other", "same"))
    pictures, second, same = dict[Path, int](), list[int](), list[bool]()
    first = list[int]()
    for number, row in enumerate(rows, start=1):
        other, answer = row.get("other"), str(row.get("same")).lower()
        if not isinstance(other, str) or not other or answer not in _TRUE + _FALSE[1:]:
            raise ProtocolError(f"{request.data}, row {number}: no `other`, or no `same` of 0 or 1")
        for name, side in ((row["path"], first), (other, second)):
            side.append(pictures.setdefault(request.data.parent / name, len(pictures)))
        same.append(answer in _TRUE)
    if not any(same) or all(same):
        raise ProtocolError(f"{request.data}: pairs of both kinds are needed, same 1 and same 0")
    return PairSet(
        [Picture(path) for path in pictures], np.array(first), np.array(second), np.array(same)
    )


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a list, `path` among their columns."""
    if not is_photo_list(path) or not path.is_file():
        what = "is not a list" if path.exists() else "is not there"
        wanted = ", ".join(("path", *columns))
        raise ProtocolError(f"{path} {what}: give a .csv or .jsonl file with the columns {wanted}")
    return [{"path": row.path, **row.attributes} for row in read_photo_list(path)]


def _role(path: Path, number: int, row: Mapping[str, Any]) -> str:
    role = str(row.get("role") or "gallery")
    if role not in ROLES:
        raise ProtocolError(f"{path}, row {number}: role {role!r}: write {', '.join(ROLES)}")
    return role


def _columns(
    path: Path, rows: Sequence[Mapping[str, Any]], column: str
) -> tuple[list[Picture], list[Hashable]]:
    """Pictures, and what they have in a column: None where the cell is empty."""
    pictures = [Picture(path.parent / row["path"]) for row in rows]
    cells: list[Hashable] = [row.get(column) for row in rows]
    return pictures, [None if cell is None or cell == "" else str(cell) for cell in cells]


def _junk(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    queries: Sequence[int],
    gallery: Sequence[int],
    truth: Truth,
) -> list[Rows]:
    """Gallery rows that do not count, for each query: itself, those it names, those marked."""
    places = {posixpath.normpath(rows[number]["path"]): row for row, number in enumerate(gallery)}
    marked = np.array([_is_marked(rows[number].get("junk")) for number in gallery], bool)
    junk = []
    for number, relevant in zip(queries, truth.relevant, strict=True):
        row = rows[number]
        named = _names(row.get("junk")) if row.get("role") == "query" else []
        unknown = [name for name in named if posixpath.normpath(name) not in places]
        if unknown:
            raise ProtocolError(f"{path}, row {number + 1}: junk {unknown[0]!r} is no gallery row")
        itself = [row["path"]] if posixpath.normpath(row["path"]) in places else []
        own = [places[posixpath.normpath(name)] for name in (*named, *itself)]
        junk.append(np.union1d(np.array(own, np.int64), relevant[marked[relevant]]))
    return junk


def _is_marked(cell: Any) -> bool:
    return str(cell).lower() in _TRUE


def _names(cell: Any) -> list[str]:
    if isinstance(cell, list):
        return [str(name) for name in cell]
    text = str(cell or "")
    return [] if text.lower() in _FALSE else text.split(";")
