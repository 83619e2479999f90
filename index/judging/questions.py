"""Queries whose right answers are known, and how well ranked ids answer them.

Letters: Q queries, D embedding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.collection.listed import embed_files
from index.collection.reading import PhotoEmbedder
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.searching.where import ATTRIBUTES, Filter
from index.tuning.held_out import view_queries
from multigrain.bootstrap import Estimate, estimated_mean
from multigrain.page import PICTURE_SIDE, picture_uri
from multigrain.photo import PhotoError, open_photo
from multigrain.photo_list import read_photo_list
from multigrain.rank_metrics import RankTable, Values, ap, recall_at_k
from multigrain.views import edited_view

NUM_NEIGHBOURS = 10
_SEED = 20190220

Ids = NDArray[np.int64]


class Questions(NamedTuple):
    """Unit rows fp32 [Q, D], the ids that answer each, ascending, and their names.

    `picture` gives that of a question by its number, as a data URI; it raises PhotoError or
    OSError.
    """

    rows: NDArray[np.float32]
    answers: list[Ids]
    names: list[str]
    picture: Callable[[int], str]


class Score(NamedTuple):
    """Means over queries of what `Judged` has of each."""

    agreement: float
    recall_at_1: float
    ap: float


class Judged(NamedTuple):
    """A value for each query, float64 [Q], of the ten nearest found.

    `agreement` is the share of the ten nearest of the reference that are among them;
    `recall_at_1` and `ap` are of the right answers. `ap` is rectangular, over ten answers at
    most; one that was not found counts as missed.
    """

    agreement: Values
    recall_at_1: Values
    ap: Values

    @property
    def score(self) -> Score:
        """The means."""
        return Score(*(float(values.mean()) for values in self))

    def estimates(self) -> dict[str, Estimate]:
        """The means by name, with their 95 % intervals over queries."""
        return {name: estimated_mean(values, seed=_SEED) for name, values in self._asdict().items()}


def view_questions(
    searcher: Searcher, embedder: PhotoEmbedder, *, num_queries: int, num_threads: int
) -> Questions:
    """Edited views of random photos of the index; each asks for its own."""
    found = view_queries(
        embedder,
        searcher.read_photo,
        searcher.present.live_ids,
        num_queries=num_queries,
        num_threads=num_threads,
        seed=_SEED,
    )
    if not len(found.ids):
        raise IndexFolderError("no photo of the index can be read: there is nothing to ask with")

    def picture(number: int) -> str:
        data = searcher.read_photo(int(found.ids[number]))
        if data is None:
            raise PhotoError("photo_unreadable", "the photo has gone")
        kind, seed = found.edits[number]
        return picture_uri(edited_view(open_photo(data).image, kind=kind, seed=seed))

    names = [f"edited copy: {kind}" for kind, _ in found.edits]
    return Questions(found.rows, [np.array([one]) for one in found.ids], names, picture)


def listed_questions(
    path: Path, searcher: Searcher, embedder: PhotoEmbedder, *, num_threads: int
) -> Questions:
    """The photos of a CSV or JSONL list with a column `instance`, each asking for its like.

    Answers are the photos of the index whose own list gave them the same `instance`; a query
    without any is left out. Raises IndexFolderError where that leaves none.
    """
    listed = list(read_photo_list(path))
    if any("instance" not in row.attributes for row in listed):
        raise IndexFolderError(f"{path}: every query needs a path and an instance")
    names = {row.attributes["instance"] for row in listed}
    known = {
        name: searcher.matching([Filter(f"{ATTRIBUTES}instance", "=", name)])
        for name in names
        if name not in ("", None)
    }
    asked = [(path.parent / row.path, known.get(row.attributes["instance"])) for row in listed]
    kept = [(file, ids) for file, ids in asked if ids is not None and len(ids)]
    if not kept:
        raise IndexFolderError(
            f"{path}: no photo of the index has one of these instances; index a list with a "
            "column instance"
        )
    files = [file for file, _ in kept]
    return Questions(
        embed_files(files, embedder, num_threads=num_threads),
        [ids for _, ids in kept],
        [file.name for file in files],
        lambda number: picture_uri(open_photo(files[number], min_side=PICTURE_SIDE).image),
    )


def judge(found: Sequence[Ids], *, reference: Sequence[Ids], answers: Sequence[Ids]) -> Judged:
    """Judge the ids found for each query, best first, at most ten of each."""
    agreement = [
        float(np.isin(near, ids).mean()) if len(near) else 1.0
        for ids, near in zip(found, reference, strict=True)
    ]
    ranks = [
        np.flatnonzero(np.isin(ids, right)).astype(np.int64)
        for ids, right in zip(found, answers, strict=True)
    ]
    table = RankTable.of(ranks, [min(len(right), NUM_NEIGHBOURS) for right in answers])
    return Judged(np.array(agreement), recall_at_k(table, 1), ap(table))
