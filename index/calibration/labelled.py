"""Pairs from a list that somebody labelled: photos with an instance, or pairs with a verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index.calibration.pairs import Pairs, instance_pairs, joined
from index.collection.listed import embed_files
from index.collection.reading import PhotoEmbedder
from index.errors import IndexFolderError
from multigrain.photo_list import ListedPhoto, read_photo_list

_VERDICTS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def labelled_pairs(path: Path, embedder: PhotoEmbedder, *, num_threads: int) -> Pairs:
    """The pairs of a CSV or JSONL list, whose photos are embedded as queries are.

    Columns `path, other, same` give the pairs themselves (same: 1, true, yes or 0, false, no);
    `path, instance` give photos, each of which is paired with the ten nearest others. Paths are
    relative to the list. Raises IndexFolderError naming the row that is wrong or the photo that
    cannot be read, and PhotoListError.
    """
    rows = list(read_photo_list(path))
    if rows and "same" in rows[0].attributes:
        return _given_pairs(path, rows, embedder, num_threads=num_threads)
    instances = [
        str(_column(path, number, row, "instance")) for number, row in enumerate(rows, start=1)
    ]
    files = [path.parent / row.path for row in rows]
    if len(files) < 2:  # noqa: PLR2004 - a pair
        raise IndexFolderError(f"{path}: lists {len(files)} photos, a pair takes two")
    return instance_pairs(embed_files(files, embedder, num_threads=num_threads), instances)


def _given_pairs(
    path: Path, rows: Sequence[ListedPhoto], embedder: PhotoEmbedder, *, num_threads: int
) -> Pairs:
    pairs, same = list[tuple[Path, Path]](), list[bool]()
    for number, row in enumerate(rows, start=1):
        other = path.parent / str(_column(path, number, row, "other"))
        verdict = str(_column(path, number, row, "same")).lower()
        if verdict not in _VERDICTS:
            raise IndexFolderError(f"{path}, row {number}: same is {verdict!r}: write 1 or 0")
        pairs.append((path.parent / row.path, other))
        same.append(_VERDICTS[verdict])
    files = list(dict.fromkeys(file for pair in pairs for file in pair))
    place = {file: number for number, file in enumerate(files)}
    embedded = embed_files(files, embedder, num_threads=num_threads)
    places = np.array([[place[file] for file in pair] for pair in pairs])
    cosines = np.vecdot(embedded[places[:, 0]], embedded[places[:, 1]])
    return joined([(cosines[i : i + 1], np.array([same[i]])) for i in range(len(same))])


def _column(path: Path, number: int, row: ListedPhoto, name: str) -> Any:
    if name not in row.attributes:
        raise IndexFolderError(
            f"{path}, row {number}: no column {name!r}; give path and instance, or path, other "
            "and same"
        )
    value = row.attributes[name]
    return "" if value is None else value
