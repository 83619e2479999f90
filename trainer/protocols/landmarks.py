"""Landmarks: revisited Oxford and Paris, and Google Landmarks v2 retrieval."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multigrain.truth import Rows, Truth
from trainer.protocols.plain_pickle import read_plain_pickle
from trainer.protocols.test_set import (
    NO_ROWS,
    Picture,
    ProtocolError,
    QuerySet,
    Request,
    need_files,
)

# Of each difficulty: what answers, and what does not count (Radenovic et al. 2018, section 4).
_DIFFICULTIES = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def roxford5k(request: Request) -> QuerySet:
    """Revisited Oxford: `gnd_roxford5k.pkl` and `jpg/`."""
    return _revisited(request.data, "roxford5k")


def rparis6k(request: Request) -> QuerySet:
    """Revisited Paris: `gnd_rparis6k.pkl` and `jpg/`."""
    return _revisited(request.data, "rparis6k")


def _revisited(folder: Path, name: str) -> QuerySet:
    """Queries are cut to their box; easy, medium and hard are scored each on its own."""
    file = folder / f"gnd_{name}.pkl"
    need_files([file], what=name, folder=folder)
    document = read_plain_pickle(file)
    try:
        queries, gallery = list(document["qimlist"]), list(document["imlist"])
        truths = list(document["gnd"])
        boxes = [tuple(float(side) for side in truth["bbx"]) for truth in truths]
        marks = [_marks(truth, len(gallery)) for truth in truths]
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"{file}: not the annotation of {name} ({error!r})") from error
    if len(queries) != len(truths) or any(len(box) != 4 for box in boxes):  # noqa: PLR2004
        raise ProtocolError(f"{file}: {len(queries)} queries, {len(truths)} truths, or no box")
    pictures = [
        Picture(folder / "jpg" / f"{query}.jpg", (box[0], box[1], box[2], box[3]))
        for query, box in zip(queries, boxes, strict=True)
    ] + [Picture(folder / "jpg" / f"{row}.jpg") for row in gallery]
    need_files([picture.path for picture in pictures], what=name, folder=folder)
    return QuerySet(
        pictures,
        np.arange(len(queries)),
        np.arange(len(queries), len(pictures)),
        {
            difficulty: Truth(*([_union(own, kinds) for own in marks] for kinds in both))
            for difficulty, both in _DIFFICULTIES.items()
        },
        ("ap_trapezoid", "precision_at_1", "precision_at_5", "precision_at_10"),
        options={"queries": "cut to their boxes"},
    )


def _marks(truth: Mapping[str, Any], num_rows: int) -> dict[str, Rows]:
    marks = {
        kind: np.asarray(truth[kind], np.int64).reshape(-1) for kind in ("easy", "hard", "junk")
    }
    if any(len(rows) and not 0 <= rows.min() <= rows.max() < num_rows for rows in marks.values()):
        raise ValueError(f"a row outside the {num_rows} of imlist")
    return marks


def _union(marks: Mapping[str, Rows], kinds: Sequence[str]) -> Rows:
    return np.unique(np.concatenate([NO_ROWS, *(marks[kind] for kind in kinds)]))


def gldv2(request: Request) -> QuerySet:
    """Google Landmarks v2: `index.csv` and `retrieval_solution*.csv` (also in `metadata/`).

    Photos lie at `index/a/b/c/abc....jpg` and `test/a/b/c/abc....jpg`. Public and private
    queries are scored each on their own, ignored ones are not asked.
    """
    folder = request.data
    names = [row["id"] for row in _csv(_metadata(folder, "index.csv"), ("id",))]
    solution = _metadata(folder, "retrieval_solution*.csv")
    rows = [row for row in _csv(solution, ("id", "images", "Usage")) if row["Usage"] != "Ignored"]
    places = {name: place for place, name in enumerate(names)}
    relevant = []
    for row in rows:
        images = [] if row["images"] == "None" else row["images"].split()
        unknown = [image for image in images if image not in places]
        if unknown:
            raise ProtocolError(f"{solution}: {row['id']} asks for {unknown[0]}, not in index.csv")
        relevant.append(np.array([places[image] for image in images], np.int64))
    pictures = [Picture(_by_id(folder / "test", row["id"])) for row in rows]
    pictures += [Picture(_by_id(folder / "index", name)) for name in names]
    need_files([picture.path for picture in pictures], what="GLDv2", folder=folder)
    usages = [row["Usage"].lower() for row in rows]
    return QuerySet(
        pictures,
        np.arange(len(rows)),
        np.arange(len(rows), len(pictures)),
        {
            usage: Truth(
                [
                    own if used == usage else NO_ROWS
                    for own, used in zip(relevant, usages, strict=True)
                ],
                [NO_ROWS] * len(rows),
            )
            for usage in dict.fromkeys(usages)
        },
        ("map_at_100", "recall_at_1"),
        options={"solution": solution.name},
    )


def _by_id(folder: Path, name: str) -> Path:
    return folder.joinpath(*name[:3], f"{name}.jpg")


def _metadata(folder: Path, pattern: str) -> Path:
    """The last file of a name in the folder or its `metadata/`: of versions the newest."""
    found = sorted(folder.glob(pattern)) or sorted((folder / "metadata").glob(pattern))
    if not found:
        raise ProtocolError(f"{folder} is not GLDv2: missing {pattern}")
    return found[-1]


def _csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ProtocolError(f"{path}: no column {missing[0]!r} in its first line")
        yield from reader
