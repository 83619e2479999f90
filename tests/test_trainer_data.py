"""Manifests, several sources at once, and which side of the split a photo is on."""

import json
from pathlib import Path

import pytest
import torch
from trainer_fixtures import draw_flat, draw_small

from multigrain.photo import PhotoError
from multigrain.photo_list import PhotoListError
from trainer.engine.processes import alone
from trainer.inputs.cache_builder import CacheSettings, build_cache
from trainer.inputs.data import DataError, build_batches, read_data
from trainer.inputs.labels import LabelsError, PhotoSet, read_joined, read_photos, split_by_hash
from trainer.inputs.photo_sources import in_class_order
from trainer.inputs.sampler import BatchPlan
from trainer.settings import TrainConfig

ROWS: list[dict[str, str | None]] = [
    {"path": "a.jpg", "label": "cat", "split": "train", "group": "1"},
    {"path": "b.jpg", "label": "dog", "split": "val", "group": "2"},
    {"path": "c.jpg", "label": "dog", "split": "train", "group": "2"},
    {"path": "d.jpg", "label": "cat", "split": "test", "group": None},
]


def write_csv(path: Path, rows: list[dict[str, str | None]]) -> Path:
    lines = [",".join(rows[0])] + [",".join(value or "" for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(path: Path, rows: list[dict[str, str | None]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, str | None]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def config(folder: Path, *data: Path, **settings: object) -> TrainConfig:
    return TrainConfig.model_validate({"out": folder / "run", "data": data} | settings)


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_manifest_gives_classes_groups_and_splits(tmp_path: Path, kind: str) -> None:
    """The same from CSV, JSONL and Parquet; the rows of a third split are left out and said."""
    manifest = WRITERS[kind](tmp_path / f"list.{kind}", ROWS)
    photos = read_photos([manifest], say=pytest.fail)
    assert photos.names == ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert photos.class_names == ("cat", "dog")
    assert photos.labels == (0, 1, 1, 0)
    assert photos.groups == ("1", "2", "2", None)
    said: list[str] = []
    data = read_data(config(tmp_path, manifest), say=said.append)
    assert data.training.names == ("a.jpg", "c.jpg")
    assert data.validation.names == ("b.jpg",)
    assert data.training.groups == ("1", "2")
    assert said[0] == "1 photos of the split 'test' are left out"


def test_val_takes_its_own_split_of_a_manifest_and_data_the_other(tmp_path: Path) -> None:
    """One list serves both flags; classes that validation alone has are refused."""
    manifest = write_csv(tmp_path / "list.csv", ROWS[:3])
    said: list[str] = []
    data = read_data(config(tmp_path, manifest, val=[manifest]), say=said.append)
    assert data.training.names == ("a.jpg", "c.jpg")
    assert data.validation.names == ("b.jpg",)
    assert data.validation.labels == (1,)
    assert "1 photos whose split is not train are left out" in said[0]
    only_train = write_csv(tmp_path / "train.csv", [ROWS[0], ROWS[2]])
    with pytest.raises(DataError, match="no photo's split is val"):
        read_data(config(tmp_path, manifest, val=[only_train]), say=said.append)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"path": "a.jpg"}\n{"path": "a.jpg"}', "row 2: 'a.jpg' is already in row 1"),
        ('{"path": "a.jpg", "label": 1.5}', "row 1: label 1.5 is neither"),
        ('{"path": "a", "split": "val"}\n{"path": "b"}', "row 2: no split, and other rows"),
        ('{"path": "a.jpg"}\n{"path": "./a.jpg"}', "row 2: './a.jpg' is already in row 1"),
        ("[" * 100_000, "row 1: not JSON"),
        ('{"path": "a", "n": ' + "9" * 5000 + "}", "row 1: not JSON"),
        ('{"label": 1}', "row 1: no `path`"),
        ("", "no photos in this list"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(tmp_path: Path, rows: str, message: str) -> None:
    """With its number, and what is wrong with it."""
    (tmp_path / "list.jsonl").write_text(rows)
    with pytest.raises((LabelsError, PhotoListError), match=message):
        read_photos([tmp_path / "list.jsonl"], say=pytest.fail)


def test_no_source_at_all_is_an_error() -> None:
    """As an empty flag gives it."""
    with pytest.raises(LabelsError, match="no photos are given"):
        read_photos([], say=pytest.fail)


def test_a_file_that_is_no_parquet_is_said(tmp_path: Path) -> None:
    """By its name and what the reader found."""
    pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    (tmp_path / "list.parquet").write_text("path\na.jpg\n")
    with pytest.raises(PhotoListError, match=r"list\.parquet: cannot be read as Parquet"):
        read_photos([tmp_path / "list.parquet"], say=pytest.fail)


def test_columns_that_are_not_read_are_said_and_whole_numbers_are_names(tmp_path: Path) -> None:
    """A misspelt `label` would otherwise train without classes in silence."""
    (tmp_path / "list.jsonl").write_text(
        '{"path": "a", "label": 10, "width": 3}\n{"path": "b", "label": 2, "lable": 3}\n'
    )
    said: list[str] = []
    photos = read_photos([tmp_path / "list.jsonl"], say=said.append)
    assert photos.class_names == ("2", "10")
    assert "of the columns, 'width', 'lable' are not read" in said[0]


def test_classes_that_are_numbers_come_in_their_order() -> None:
    """A list of class indices keeps its indices; names with leading zeros stay text."""
    assert in_class_order(["10", "9", "10"]) == ("9", "10")
    assert in_class_order(["10", "09"]) == ("09", "10")
    assert in_class_order(["b", "a"]) == ("a", "b")


def test_sources_join_by_the_names_of_classes_and_photos_keep_apart(tmp_path: Path) -> None:
    """Two folders of the same name and a list: every photo is read from its own place."""
    first = draw_small(tmp_path / "a" / "shop", num_classes=2, instances=1, photos=1)
    second = draw_small(tmp_path / "b" / "shop", num_classes=3, instances=1, photos=1)
    path = next((second / "02-fish").iterdir())
    listed = write_csv(tmp_path / "list.csv", [{"path": str(path), "label": "cod"}])
    photos = read_photos([first, second, listed], say=pytest.fail)
    assert photos.class_names == ("00-house", "01-cup", "02-fish", "cod")
    assert len(set(photos.names)) == len(photos.names) == 6
    assert photos.names[0].startswith("shop:1/00-house/")
    assert photos.names[2].startswith("shop:2/00-house/")
    assert photos.labels == (0, 1, 0, 1, 2, 3)
    assert photos.image(5, min_side=8) == photos.image(4, min_side=8)
    picked = photos.pick([4, 0])
    assert picked.image(0, min_side=8) == photos.image(4, min_side=8)


def test_one_source_without_classes_takes_them_from_all_and_is_named(tmp_path: Path) -> None:
    """Training on some classes and calling the rest class 0 would be worse."""
    classes, flat = draw_small(tmp_path / "classes"), draw_flat(tmp_path / "flat", num_photos=3)
    said: list[str] = []
    photos = read_photos([classes, flat], say=said.append)
    assert photos.class_names is None
    assert set(photos.labels) == {0}
    assert said == [f"{flat}: 3 of 3 photos have no class, so there are no classes"]


def test_the_folder_above_train_and_val_is_refused(tmp_path: Path) -> None:
    """Its classes would be `train` and `val`."""
    for name in ("train", "val"):
        draw_small(tmp_path / "set" / name, num_classes=2, instances=1, photos=1)
    with pytest.raises(LabelsError, match=r"look like parts .* give --data .*train and --val"):
        read_photos([tmp_path / "set"], say=pytest.fail)


def test_photos_of_one_group_stay_on_one_side() -> None:
    """A thing seen in training would be easy to find in validation."""
    names = [f"{number:04d}.jpg" for number in range(600)]
    groups = tuple(str(number // 3) for number in range(600))
    photos = PhotoSet.of_files(Path("photos"), names)._replace(groups=groups)
    training, validation = split_by_hash(photos, 0.2)
    assert set(training.groups or ()).isdisjoint(validation.groups or ())
    assert sorted(training.names + validation.names) == names
    assert 80 < len(validation.names) < 160
    one = split_by_hash(photos._replace(groups=("a",) * 600), 0.2)
    assert (len(one[0].names), len(one[1].names)) == (600, 0)


def test_a_listed_photo_that_is_missing_is_an_unreadable_photo(tmp_path: Path) -> None:
    """Counted and replaced in training like any other; the rest is used."""
    photos = read_photos([write_csv(tmp_path / "l.csv", [{"path": "gone.jpg"}])], say=pytest.fail)
    with pytest.raises(PhotoError, match=r"no file .*gone\.jpg"):
        photos.image(0, min_side=8)


def test_the_split_of_a_source_is_kept_beside_a_source_without_one(tmp_path: Path) -> None:
    """The photos of the other source are all trained on."""
    manifest = write_csv(tmp_path / "list.csv", [{**row, "label": None} for row in ROWS[:3]])
    flat = draw_flat(tmp_path / "flat", num_photos=3)
    data = read_data(config(tmp_path, manifest, flat), say=lambda _: None)
    assert len(data.training.names) == 2 + 3
    assert data.validation.names == ("list.csv/b.jpg",)
    assert read_joined([flat], say=pytest.fail).splits == (None,) * 3


def test_what_is_read_and_how_is_said_at_the_start(tmp_path: Path) -> None:
    """The rung of the ladder: files, or a cache, and how often a photo is decoded."""
    folder = draw_small(tmp_path / "photos", num_classes=2, instances=2, photos=1)
    said: list[str] = []
    read_data(config(tmp_path, folder), say=said.append)
    assert said[-1].startswith("photos are read from files, decoded once for 3 views; trainer.cac")
    settings = CacheSettings("raw", 32, 90)
    joined = read_joined([folder], say=pytest.fail)
    build_cache(joined, tmp_path / "cache", settings, num_threads=1, say=said.append)
    small: dict[str, object] = {"size": 32, "num_views": 1}
    read_data(config(tmp_path, tmp_path / "cache", **small), say=said.append)
    assert said[-1] == "photos are read from a cache of raw pixels"
    read_data(config(tmp_path, tmp_path / "cache", **small, more_test_sizes=[64]), say=said.append)
    assert said[-1].startswith("a cache holds photos of side 32, below --more-test-sizes 64: ")


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_the_number_of_workers_changes_no_batch(tmp_path: Path, num_workers: int | None) -> None:
    """In line, by cores or by threads: the settings' batches are the same."""
    folder = draw_small(tmp_path / "photos", num_classes=2, instances=2, photos=1)
    settings = {"size": 32, "batch_size": 6, "min_area": 0.5}
    own, plain = (
        config(tmp_path, folder, **settings, num_workers=number) for number in (num_workers, 0)
    )
    data = read_data(own, say=lambda _: None)
    plan = BatchPlan(
        num_photos=len(data.training.names), batch_size=6, num_views=3, num_processes=1, seed=0
    )
    found = list(build_batches(own, data, plan, alone(), start=1, stop=4))
    wanted = list(build_batches(plain, data, plan, alone(), start=1, stop=4))
    assert len(found) == 3
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.seeds, other.seeds)
