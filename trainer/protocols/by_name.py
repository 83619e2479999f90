"""Photos of one scene or one original, told by their file names: Holidays, UKBench, Copydays."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.protocols.test_set import (
    Picture,
    ProtocolError,
    QuerySet,
    Request,
    groups_truth,
    need_files,
    photos_in,
)

HOLIDAYS_SCENES, HOLIDAYS_PHOTOS = 500, 1491
UKBENCH_PHOTOS, UKBENCH_GROUP = 10_200, 4
COPYDAYS_ORIGINALS, COPYDAYS_STRONG = 157, 229
_FIRST_HOLIDAY = 1000  # photos 100000, 100001, ... are of scene 1000
_QUARTERS = ("0", "1", "2", "3")


def holidays(request: Request) -> QuerySet:
    """INRIA Holidays: `jpg/100000.jpg` or `100000.jpg`; numbers divisible by 100 are queries.

    The other photos of a scene's hundred answer; the query leaves its own list. Photos are
    upright by EXIF, and by the table where one is given.
    """
    folder = _inner(request.data, "jpg")
    what = "Holidays"
    queries = [f"{_FIRST_HOLIDAY + scene}00.jpg" for scene in range(HOLIDAYS_SCENES)]
    need_files([folder / name for name in queries], what=what, folder=folder)
    paths = _numbered(photos_in(folder, what=what))
    _need_count(paths, HOLIDAYS_PHOTOS, folder=folder, what=what)
    turns = read_upright(request.upright) if request.upright else {}
    pictures = [Picture(path, turns=turns.get(path.name, 0)) for path in paths]
    scenes = [int(path.stem) // 100 for path in paths]
    asked = [number for number, path in enumerate(paths) if int(path.stem) % 100 == 0]
    upright = f"EXIF, then {request.upright.name}" if request.upright else "EXIF"
    options = {"upright": upright, "turned": sum(bool(picture.turns) for picture in pictures)}
    return QuerySet(
        pictures,
        np.array(asked, np.int64),
        np.arange(len(paths)),
        {"": groups_truth([scenes[number] for number in asked], scenes, own=asked)},
        ("ap_trapezoid", "recall_at_1"),
        options=options,
    )


def read_upright(path: Path) -> dict[str, int]:
    """Quarter turns clockwise by file name, from lines `name,turns`; raises ProtocolError."""
    need_files([path], what="a table of upright photos", folder=path.parent)
    turns = dict[str, int]()
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if row[:2] == ["name", "turns"]:
                continue
            if len(row) != 2 or row[1] not in _QUARTERS:  # noqa: PLR2004 - two cells
                raise ProtocolError(f"{path}, row {number}: write `name,turns` with turns 0 to 3")
            turns[row[0]] = int(row[1])
    return turns


def ukbench(request: Request) -> QuerySet:
    """UKBench: `full/ukbench00000.jpg` or without `full`; groups of four by name.

    Every photo asks among all, itself included.
    """
    folder = _inner(request.data, "full")
    paths = [folder / f"ukbench{number:05d}.jpg" for number in range(UKBENCH_PHOTOS)]
    need_files(paths, what="UKBench", folder=folder)
    groups = [number // UKBENCH_GROUP for number in range(len(paths))]
    rows = np.arange(len(paths))
    truth = groups_truth(groups, groups, own=None)
    return QuerySet([Picture(path) for path in paths], rows, rows, {"": truth}, ("ukbench_ns",))


def copydays(request: Request) -> QuerySet:
    """INRIA Copydays: `original/200000.jpg`, `strong/200001.jpg`, and `distractors/` if there.

    The strong copies ask among originals and distractors; the original of their hundred answers.
    """
    data, what = request.data, "Copydays"
    originals = _numbered(photos_in(data / "original", what=what))
    strong = _numbered(photos_in(data / "strong", what=what))
    _need_count(originals, COPYDAYS_ORIGINALS, folder=data / "original", what=what)
    _need_count(strong, COPYDAYS_STRONG, folder=data / "strong", what=what)
    distractors = list[Path]()
    if (data / "distractors").is_dir():
        from trainer.inputs.photos import paths_of

        distractors = paths_of(data / "distractors")
    scenes = [int(path.stem) // 100 for path in originals]
    asked = [int(path.stem) // 100 for path in strong]
    alone = [path.name for path, scene in zip(strong, asked, strict=True) if scene not in scenes]
    if alone:
        raise ProtocolError(f"{data / 'original'}: no original of strong/{alone[0]}")
    gallery = originals + distractors
    truth = groups_truth(asked, [*scenes, *[None] * len(distractors)], own=None)
    return QuerySet(
        [Picture(path) for path in strong + gallery],
        np.arange(len(strong)),
        np.arange(len(strong), len(strong) + len(gallery)),
        {"": truth},
        ("ap_trapezoid", "recall_at_1"),
        options={"copies": "strong", "distractors": len(distractors)},
    )


def _inner(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _numbered(paths: Sequence[Path]) -> list[Path]:
    wrong = [path.name for path in paths if not path.stem.isdecimal()]
    if wrong:
        raise ProtocolError(f"{paths[0].parent}: {wrong[0]} is not named by a number")
    return list(paths)


def _need_count(paths: Sequence[Path], wanted: int, *, folder: Path, what: str) -> None:
    if len(paths) != wanted:
        raise ProtocolError(f"{folder} holds {len(paths)} photos, {what} has {wanted} there")
