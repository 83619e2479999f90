"""What every protocol is read into: pictures, queries, gallery, and what answers what.

Q queries, N gallery rows.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain.errors import MultiGrainError
from multigrain.truth import Rows, Truth

NO_ROWS: Rows = np.empty(0, np.int64)
_MOST_NAMED = 5

Box = tuple[float, float, float, float]


class ProtocolError(MultiGrainError):
    """A folder that does not hold the test set, with what is missing."""


class Picture(NamedTuple):
    """A photo as it is embedded: cut to `box`, then turned by `turns` quarters clockwise.

    The box is left, top, right, bottom in pixels of the upright photo.
    """

    path: Path
    box: Box | None = None
    turns: int = 0


class QuerySet(NamedTuple):
    """Queries against a gallery.

    `queries` int64 [Q] and `gallery` int64 [N] are numbers of pictures. Each of `truths` is
    scored on its own; its name precedes that of its metrics. `metrics` are names that
    `multigrain.rank_metrics.metric` knows; with `pooled`, all pairs of all queries are pooled
    into micro_ap and recall_at_precision_90. `options` are stated beside the scores.
    """

    pictures: Sequence[Picture]
    queries: Rows
    gallery: Rows
    truths: Mapping[str, Truth]
    metrics: Sequence[str]
    pooled: bool = False
    options: Mapping[str, Any] = {}

    def identities(self) -> tuple[Rows, Rows]:
        """Numbers of the queries [Q] and of the gallery [N]: equal where they are one picture."""
        first = dict[Picture, int]()
        numbers = [first.setdefault(one, number) for number, one in enumerate(self.pictures)]
        same = np.array(numbers, np.int64)
        return same[self.queries], same[self.gallery]


class PairSet(NamedTuple):
    """Pairs of pictures that show the same or not: numbers of pictures, and bool, all [M]."""

    pictures: Sequence[Picture]
    first: Rows
    second: Rows
    same: np.ndarray[tuple[int], np.dtype[np.bool_]]
    options: Mapping[str, Any] = {}


class Request(NamedTuple):
    """What a protocol is read from: its folder or list, and the choices that change its truth.

    `upright` is a table of `name,quarter turns clockwise` for Holidays, beside EXIF.
    """

    data: Path
    upright: Path | None = None


def groups_truth(
    query_groups: Sequence[Hashable], gallery_groups: Sequence[Hashable], own: Sequence[int] | None
) -> Truth:
    """Gallery rows of a query's group answer it; its own row, where it has one, is junk.

    None is no group: such a query has no answer, such a row answers nothing.
    """
    members = defaultdict[Hashable, list[int]](list)
    for row, group in enumerate(gallery_groups):
        if group is not None:
            members[group].append(row)
    # One array a group, shared by its queries.
    rows = {group: np.array(found, np.int64) for group, found in members.items()}
    relevant = [NO_ROWS if group is None else rows.get(group, NO_ROWS) for group in query_groups]
    if own is None:
        return Truth(relevant, [NO_ROWS] * len(relevant))
    return Truth(relevant, [np.array([row], np.int64) for row in own])


def leave_one_out(
    pictures: Sequence[Picture],
    groups: Sequence[Hashable],
    metrics: Sequence[str],
    options: Mapping[str, Any],
) -> QuerySet:
    """Every picture against all others; those of its group answer it."""
    rows = np.arange(len(pictures))
    truth = groups_truth(groups, groups, own=range(len(rows)))
    return QuerySet(pictures, rows, rows, {"": truth}, metrics, options=options)


def need_files(paths: Iterable[Path], *, what: str, folder: Path) -> None:
    """Raise ProtocolError naming the first files that are not there, and how many are not."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(_below(path, folder) for path in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise ProtocolError(f"{folder} is not {what}: missing {shown}{more}")


def need_folder(path: Path, *, what: str) -> Path:
    """Return a folder; raises ProtocolError when it is none."""
    if not path.is_dir():
        raise ProtocolError(f"{path} is not a folder: it should hold {what}")
    return path


def photos_in(folder: Path, *, what: str, pattern: str = "*.jpg") -> list[Path]:
    """Photos of a folder by name; raises ProtocolError when there are none."""
    found = sorted(need_folder(folder, what=what).glob(pattern))
    if not found:
        raise ProtocolError(f"{folder} holds no {pattern}: it should hold {what}")
    return found


def text_lines(path: Path, *, what: str) -> list[list[str]]:
    """The words of each line of a text file; raises ProtocolError when it cannot be read."""
    need_files([path], what=what, folder=path.parent)
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line]
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{path} is not text in UTF-8 ({error})") from error


def _below(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
