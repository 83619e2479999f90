"""Groups of near-duplicates of an index, with what is known of each photo."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.grouping.components import Components
from index.grouping.near import Pairs, compared_pairs, searched_pairs
from index.searcher import Searcher

# Comparing grows with the square of the rows: 5 TFLOP for 100,000 of 512 dimensions.
_MOST_COMPARED = 200_000
_BLOCK_IDS = 8192


class Method(StrEnum):
    """How pairs are found: `auto` compares every two up to 200,000 rows, then searches."""

    AUTO = "auto"
    EXACT = "exact"
    LISTS = "lists"


class Member(NamedTuple):
    """A photo of a group: all its paths, absolute, and the cosine to the group's first."""

    id: int
    uri: str
    paths: list[str]
    width: int
    height: int
    bytes: int
    cosine: float


Group = list[Member]


def find_groups(
    searcher: Searcher, *, threshold: float, method: Method = Method.AUTO
) -> list[Group]:
    """Groups of photos joined by cosines of at least `threshold`, largest group first.

    Two photos of a group may be less alike than that, where others lie between them. The photo
    of most pixels comes first in its group. The same bytes at several paths are one photo, which
    is a group by itself.
    """
    present = searcher.present
    ids = present.live_ids
    components = Components(len(ids))
    for pairs in _pairs(searcher, ids, threshold, method):
        components.join(pairs.left, pairs.right)
    joined = [ids[group] for group in components.groups()]
    alone = np.setdiff1d(ids, np.concatenate([ids[:0], *joined]))
    joined += [np.array([one]) for one in _several_paths(searcher, alone)]
    groups = [_group(searcher, part) for part in joined]
    return sorted(groups, key=lambda group: (-_num_paths(group), group[0].id))


def _pairs(
    searcher: Searcher, ids: NDArray[np.int64], threshold: float, method: Method
) -> Iterator[Pairs]:
    units = searcher.present.embeddings
    if method == Method.EXACT or (method == Method.AUTO and len(ids) <= _MOST_COMPARED):
        return compared_pairs(ids, units, threshold)
    return searched_pairs(ids, units, threshold, searcher.rank)


def _several_paths(searcher: Searcher, ids: NDArray[np.int64]) -> Iterator[int]:
    for start in range(0, len(ids), _BLOCK_IDS):
        entries = searcher.present.entries(ids[start : start + _BLOCK_IDS].tolist())
        yield from (one for one, entry in entries.items() if len(entry.files) > 1)


def _num_paths(group: Group) -> int:
    return sum(len(member.paths) for member in group)


def _group(searcher: Searcher, ids: NDArray[np.int64]) -> Group:
    contents: dict[int, Any] = {one.id: one for one in searcher.contents(ids.tolist())}
    entries = searcher.present.entries(list(contents))
    order = sorted(contents, key=lambda i: (-contents[i].width * contents[i].height, i))
    rows = searcher.embeddings(order)
    cosines = (rows @ rows[0]).clip(-1, 1)
    return [
        Member(
            i,
            entries[i].uri,
            [str(path) for path in entries[i].files],
            contents[i].width,
            contents[i].height,
            contents[i].bytes,
            round(float(cosine), 4),
        )
        for i, cosine in zip(order, cosines, strict=True)
    ]
