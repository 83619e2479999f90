"""DISC21, the Image Similarity Challenge: which photos are edited copies of a reference."""

import csv
from pathlib import Path

import numpy as np

from multigrain.truth import Truth
from trainer.protocols.test_set import (
    NO_ROWS,
    Picture,
    ProtocolError,
    QuerySet,
    Request,
    need_files,
    photos_in,
)


def disc21(request: Request) -> QuerySet:
    """A `*ground_truth*.csv` of query and reference, `queries/Q*.jpg`, `references/R*.jpg`.

    Also `groundtruth`, `refs/` and names with a prefix such as `dev_`. Every query of the file
    is asked, those without a reference too: they can only be wrong.
    """
    folder = request.data
    file = _ground_truth(folder)
    asked = _pairs(file)
    queries = _folder(folder, "queries")
    references = photos_in(_folder(folder, "references", "refs"), what="DISC21's references")
    places = {path.stem: row for row, path in enumerate(references)}
    unknown = [name for names in asked.values() for name in names if name not in places]
    if unknown:
        raise ProtocolError(
            f"{references[0].parent} is not DISC21's: missing {unknown[0]}.jpg"
            f"{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}"
        )
    photos = [queries / f"{name}.jpg" for name in asked]
    need_files(photos, what="DISC21", folder=folder)
    truth = Truth(
        [np.array(sorted({places[name] for name in names}), np.int64) for names in asked.values()],
        [NO_ROWS] * len(asked),
    )
    return QuerySet(
        [Picture(path) for path in [*photos, *references]],
        np.arange(len(photos)),
        np.arange(len(photos), len(photos) + len(references)),
        {"": truth},
        ("recall_at_1",),
        pooled=True,
        options={"ground_truth": file.name},
    )


def _ground_truth(folder: Path) -> Path:
    found = sorted({*folder.glob("*ground_truth*.csv"), *folder.glob("*groundtruth*.csv")})
    if len(found) != 1:
        raise ProtocolError(f"{folder} is not DISC21: {len(found)} files *ground_truth*.csv, not 1")
    return found[0]


def _pairs(file: Path) -> dict[str, list[str]]:
    """References of each query, in the file's order."""
    asked = dict[str, list[str]]()
    with file.open(encoding="utf-8", newline="") as opened:
        for number, row in enumerate(csv.reader(opened), start=1):
            if row[:1] == ["query_id"]:
                continue
            if not row or len(row) > 2:  # noqa: PLR2004 - two cells
                raise ProtocolError(f"{file}, row {number}: write `query_id,reference_id`")
            asked.setdefault(row[0], []).extend(name for name in row[1:] if name)
    return asked


def _folder(folder: Path, *names: str) -> Path:
    found = [path for name in names for path in sorted(folder.glob(f"*{name}")) if path.is_dir()]
    if not found:
        raise ProtocolError(f"{folder} is not DISC21: missing {names[0]}/")
    return found[0]
