"""Classes unseen in training: CUB-200-2011, Cars-196, Stanford Online Products, In-Shop."""

from pathlib import Path

import numpy as np

from trainer.protocols.test_set import (
    Picture,
    ProtocolError,
    QuerySet,
    Request,
    groups_truth,
    leave_one_out,
    need_files,
    text_lines,
)

CUB_FIRST, CARS_FIRST = 101, 99  # the first class of the second half, which is the test
_OF_CLASSES = ("map_at_r", "r_precision")
_FEW = ("recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8", *_OF_CLASSES)
_MANY = ("recall_at_1", "recall_at_10", "recall_at_100", "recall_at_1000", *_OF_CLASSES)
_SHOP = tuple(f"recall_at_{k}" for k in (1, 10, 20, 30, 40, 50))


def cub(request: Request) -> QuerySet:
    """CUB-200-2011: `images.txt`, `image_class_labels.txt`, `images/`; classes 101 to 200."""
    folder, what = request.data, "CUB-200-2011"
    paths = dict(_columns(folder / "images.txt", 2, what=what))
    labels = dict(_columns(folder / "image_class_labels.txt", 2, what=what))
    kept = [
        (folder / "images" / paths[key], label)
        for key, label in labels.items()
        if key in paths and int(label) >= CUB_FIRST
    ]
    return _of_classes(kept, _FEW, folder=folder, what=what, classes=f"from {CUB_FIRST}")


def cars(request: Request) -> QuerySet:
    """Cars-196: `cars_annos.mat` and `car_ims/`; classes 99 to 196."""
    folder, what = request.data, "Cars-196"
    file = folder / "cars_annos.mat"
    need_files([file], what=what, folder=folder)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ProtocolError(
            f"{file}: reading MATLAB files needs scipy: pip install 'multigrain-retrieval[mat]'"
        ) from error
    try:
        rows = loadmat(file, simplify_cells=True)["annotations"]
        kept = [
            (folder / str(row["relative_im_path"]), str(row["class"]))
            for row in rows
            if int(row["class"]) >= CARS_FIRST
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"{file}: not the annotations of {what} ({error!r})") from error
    return _of_classes(kept, _FEW, folder=folder, what=what, classes=f"from {CARS_FIRST}")


def sop(request: Request) -> QuerySet:
    """Stanford Online Products: `Ebay_test.txt` (image, class, super class, path) and photos."""
    folder, what = request.data, "Stanford Online Products"
    rows = _columns(folder / "Ebay_test.txt", 4, what=what)[1:]
    kept = [(folder / row[3], row[1]) for row in rows]
    return _of_classes(kept, _MANY, folder=folder, what=what, classes="of Ebay_test.txt")


def in_shop(request: Request) -> QuerySet:
    """In-Shop Clothes: `list_eval_partition.txt` (also in `Eval/`) and `img/`."""
    folder, what = request.data, "In-Shop Clothes Retrieval"
    file = folder / "Eval" / "list_eval_partition.txt"
    file = file if file.is_file() else folder / file.name
    rows = [row for row in text_lines(file, what=what)[2:] if row[-1:] in (["query"], ["gallery"])]
    pictures = [Picture(folder / row[0]) for row in rows]
    need_files([picture.path for picture in pictures], what=what, folder=folder)
    asked, gallery = (
        np.array([number for number, row in enumerate(rows) if row[-1] == role], np.int64)
        for role in ("query", "gallery")
    )
    if not len(asked) or not len(gallery):
        raise ProtocolError(f"{file}: {len(asked)} queries, {len(gallery)} gallery rows")
    items = [row[1] for row in rows]
    truth = groups_truth([items[row] for row in asked], [items[row] for row in gallery], own=None)
    return QuerySet(pictures, asked, gallery, {"": truth}, _SHOP)


def _of_classes(
    rows: list[tuple[Path, str]],
    metrics: tuple[str, ...],
    *,
    folder: Path,
    what: str,
    classes: str,
) -> QuerySet:
    """Every photo of the test classes against all others of them."""
    if not rows:
        raise ProtocolError(f"{folder} is not {what}: no photo of the classes {classes}")
    need_files([path for path, _ in rows], what=what, folder=folder)
    pictures = [Picture(path) for path, _ in rows]
    return leave_one_out(pictures, [label for _, label in rows], metrics, {"classes": classes})


def _columns(path: Path, number: int, *, what: str) -> list[list[str]]:
    rows = text_lines(path, what=what)
    for line, row in enumerate(rows, start=1):
        if len(row) != number:
            raise ProtocolError(f"{path}, line {line}: {len(row)} words, {number} are wanted")
    return rows
