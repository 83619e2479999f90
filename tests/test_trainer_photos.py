"""Which photos a folder gives, their classes, the split, and photos that cannot be read."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trainer_fixtures import draw_flat, draw_small

from multigrain.photo import open_photo
from multigrain.transforms import Pixels
from trainer.engine.processes import alone
from trainer.inputs.augment import Augmentation, random_view
from trainer.inputs.bad_photos import BadPhotos, BadPhotosError
from trainer.inputs.labels import (
    LabelsError,
    PhotoSet,
    read_photo_set,
    split_by_hash,
    with_classes_of,
)
from trainer.inputs.loading import (
    BadPhoto,
    LoadingError,
    Steps,
    ViewsDataset,
    batch_loader,
    threaded_batches,
)
from trainer.inputs.photos import PhotoListError, find_photos, paths_of
from trainer.inputs.sampler import BatchPlan, Draw
from trainer.scenes import draw_photo


def photo_set(num_photos: int, root: Path = Path("photos")) -> PhotoSet:
    names = tuple(f"{number:05d}.jpg" for number in range(num_photos))
    return PhotoSet.of_files(root, names)


def pixels_of(image: Image.Image) -> Pixels:
    return np.array(image)


def test_the_drawn_collection_is_the_same_on_each_run(tmp_path: Path) -> None:
    """Equal bytes, without EXIF, and other bytes for another instance or view."""
    first, second = draw_small(tmp_path / "a"), draw_small(tmp_path / "b")
    names = find_photos(first)
    assert names == find_photos(second)
    assert len(names) == 3 * 3 * 2
    contents = [(first / name).read_bytes() for name in names]
    assert contents == [(second / name).read_bytes() for name in names]
    assert len(set(contents)) == len(contents)
    assert not any(b"Exif" in content for content in contents)


def test_drawn_photos_are_of_the_asked_size_and_some_stand_upright() -> None:
    """4:3 or 3:4, longest side as asked."""
    sizes = {draw_photo(0, 0, view, size=40, seed=0).size for view in range(12)}
    assert sizes == {(40, 30), (30, 40)}


def test_content_decides_for_files_not_named_like_photos(tmp_path: Path) -> None:
    """A JPEG and a HEIF without a suffix count, a text and hidden files do not."""
    photo = draw_flat(tmp_path / "drawn", num_photos=3) / "photo-000.jpg"
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "no-suffix").write_bytes(photo.read_bytes())
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.jpg").write_bytes(photo.read_bytes())
    (folder / "phone").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert find_photos(folder) == ["deep/no-suffix", "phone"]


def test_what_is_no_regular_file_is_no_photo(tmp_path: Path) -> None:
    """A pipe would be waited for until somebody writes into it."""
    draw_photo(0, 0, 0, size=16, seed=0).save(tmp_path / "a.jpg")
    for name in ("pipe.jpg", "pipe"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert find_photos(tmp_path) == ["a.jpg"]


@pytest.fixture
def deepen(tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Make folders in folders; they are removed by a program that bears any depth."""

    def deepen(name: str, depth: int) -> None:
        parent = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=parent)
            child = os.open(name, os.O_RDONLY, dir_fd=parent)
            os.close(parent)
            parent = child
        photo = os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=parent)
        os.close(photo)
        os.close(parent)

    yield deepen
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_a_folder_that_cannot_be_looked_into_is_an_error(
    tmp_path: Path, deepen: Callable[[str, int], None]
) -> None:
    """Its photos would be missing without a word; here the path is too long to be opened."""
    deepen("d" * 250, 20)
    with pytest.raises(PhotoListError, match=r"ddd cannot be looked into \(File name too long\)"):
        find_photos(tmp_path)


def test_folders_deeper_than_the_interpreter_s_stack_are_searched(
    tmp_path: Path, deepen: Callable[[str, int], None]
) -> None:
    """The photo at the bottom is found."""
    deepen("d", 1100)
    assert find_photos(tmp_path) == ["d/" * 1100 + "a.jpg"]


def test_a_class_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """At the start, because the checkpoint at the end cannot hold it; without classes it may."""
    for name in ("cup", "caf\udce9"):
        (tmp_path / name).mkdir()
        draw_photo(0, 0, 0, size=16, seed=0).save(tmp_path / name / "a.jpg")
    with pytest.raises(LabelsError, match=r"caf\\udce9' is not UTF-8: rename"):
        read_photo_set(tmp_path, say=pytest.fail)
    (tmp_path / "cup" / "a.jpg").unlink()
    assert read_photo_set(tmp_path, say=lambda _: None).names == ("caf\udce9/a.jpg",)


def test_a_loop_of_links_is_entered_once(tmp_path: Path) -> None:
    """A link to a folder above itself gives every photo once."""
    draw_photo(0, 0, 0, size=16, seed=0).save(tmp_path / "a.jpg")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert find_photos(tmp_path) == ["a.jpg"]


def test_lists_name_photos_beside_themselves(tmp_path: Path) -> None:
    """CSV and JSONL with a `path` column; a row without one is an error."""
    csv, jsonl, wrong = (tmp_path / name for name in ("a.csv", "a.jsonl", "b.jsonl"))
    csv.write_text("path,label\nx/1.jpg,3\n")
    jsonl.write_text(json.dumps({"path": "x/1.jpg"}) + "\n")
    wrong.write_text(json.dumps({"file": "x/1.jpg"}) + "\n")
    assert paths_of(csv) == paths_of(jsonl) == [tmp_path / "x/1.jpg"]
    with pytest.raises(PhotoListError, match="path"):
        paths_of(wrong)
    with pytest.raises(PhotoListError, match="no folder"):
        paths_of(tmp_path / "nowhere")


def test_sub_folders_are_classes_and_a_flat_folder_has_none(tmp_path: Path) -> None:
    """Loose photos beside sub-folders, or a single one, make no classes, and that is said."""
    labelled = read_photo_set(draw_small(tmp_path / "labelled"), say=pytest.fail)
    assert labelled.class_names == ("00-house", "01-cup", "02-fish")
    assert labelled.labels == tuple(np.repeat([0, 1, 2], 6))
    flat_folder = draw_flat(tmp_path / "flat", num_photos=3)
    assert read_photo_set(flat_folder, say=pytest.fail).class_names is None
    said: list[str] = []
    (flat_folder / "sub").mkdir()
    (flat_folder / "photo-000.jpg").rename(flat_folder / "sub" / "photo.jpg")
    assert read_photo_set(flat_folder, say=said.append).class_names is None
    assert "2 photos lie beside the sub-folders" in said[0]


def test_validation_photos_get_the_labels_of_training(tmp_path: Path) -> None:
    """By class name, not by place; an unknown class is refused."""
    training = PhotoSet.of_files(tmp_path, ("a/1", "b/1", "c/1"), (0, 1, 2), ("a", "b", "c"))
    validation = PhotoSet.of_files(tmp_path, ("b/2", "c/2"), (0, 1), ("b", "c"))
    assert with_classes_of(validation, training).labels == (1, 2)
    with pytest.raises(LabelsError, match="unknown"):
        with_classes_of(training, validation)


@given(st.integers(1, 200), st.floats(0, 0.9))
def test_the_split_loses_no_photo_and_empties_no_side(num_photos: int, fraction: float) -> None:
    """Training and validation are disjoint and complete."""
    photos = photo_set(num_photos)
    training, validation = split_by_hash(photos, fraction)
    assert sorted(training.names + validation.names) == list(photos.names)
    assert training.names
    assert bool(validation.names) == (num_photos > 1 and fraction > 0)


def test_a_photo_stays_on_its_side_when_others_come() -> None:
    """The side is a hash of the photo's own name."""
    few, many = split_by_hash(photo_set(500), 0.1)[1], split_by_hash(photo_set(1000), 0.1)[1]
    assert set(few.names) == {name for name in many.names if int(name[:5]) < 500}
    assert 70 < len(many.names) < 130


def test_crops_depend_on_their_seed_alone() -> None:
    """Equal seeds give equal views, another seed another one."""
    photo = pixels_of(draw_photo(0, 0, 0, size=64, seed=0))
    augmentation = Augmentation(size=32, seed=1)
    views = [random_view(photo, augmentation, seed=seed) for seed in range(8)]
    again = [random_view(photo, augmentation, seed=seed) for seed in range(8)]
    assert all(np.array_equal(one, other) for one, other in zip(views, again, strict=True))
    assert len({view.tobytes() for view in views}) == len(views)
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)


def test_crops_show_the_whole_range_of_areas_and_every_corner() -> None:
    """A photo whose colours are coordinates tells which part a view shows, and if it is turned."""
    side = 200
    ramp = np.arange(side, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.uint8(9)), axis=2)
    photo = np.ascontiguousarray(pixels)
    augmentation = Augmentation(size=32, seed=1)
    areas, flips, edges = [], 0, np.zeros(4, bool)
    for seed in range(400):
        view = random_view(photo, augmentation, seed=seed).astype(float)
        first, last = view[:, 0, 0].mean(), view[:, -1, 0].mean()
        top, bottom = view[0, :, 1].mean(), view[-1, :, 1].mean()
        flips += first > last
        left, right = sorted((first, last))
        scale = 32 / 31  # from the middles of the outer pixels to their edges
        areas.append((right - left) * (bottom - top) * (scale / side) ** 2)
        edges |= np.array([left, top, side - right, side - bottom]) < 8
    assert 0.06 < min(areas) < 0.13
    assert 0.8 < max(areas) <= 1.02
    assert 0.4 < np.mean(areas) < 0.6
    assert 150 < flips < 250
    assert edges.all()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_a_photo_of_one_pixel_width_has_views(size: tuple[int, int]) -> None:
    """No crop of the usual aspect fits: the middle is taken."""
    view = random_view(pixels_of(Image.new("RGB", size)), Augmentation(size=32, seed=0), seed=0)
    assert view.shape == (32, 32, 3)


def test_workers_do_not_change_a_batch(tmp_path: Path) -> None:
    """The same pixels, labels and ids in line, from a loading process, and from threads."""
    photos = read_photo_set(draw_small(tmp_path / "photos"), say=pytest.fail)
    plan = BatchPlan(num_photos=18, batch_size=12, num_views=3, num_processes=1, seed=0)
    dataset = ViewsDataset(photos, Augmentation(size=32, seed=0), num_views=3)
    steps = Steps(plan, rank=0, start=3, stop=6)
    plain, *loaders = (
        [*batch_loader(dataset, steps, num_workers=0, pin_memory=False)],
        batch_loader(dataset, steps, num_workers=1, pin_memory=False),
        threaded_batches(dataset, steps, num_threads=3),
    )
    for one, other in [pair for batches in loaders for pair in zip(plain, batches, strict=True)]:
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.photo_ids, other.photo_ids)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.seeds, other.seeds)
        assert len(set(one.seeds.tolist())) == 12
        assert one.pixels.shape == (12, 3, 32, 32)
        assert one.pixels.is_contiguous(memory_format=torch.channels_last)
        assert one.photo_ids.tolist() == [i for i in one.photo_ids[::3].tolist() for _ in "abc"]


def test_an_unreadable_photo_is_replaced_by_the_next_and_named(tmp_path: Path) -> None:
    """The views carry the id of the photo that was read."""
    folder = draw_flat(tmp_path / "flat", num_photos=3)
    (folder / "photo-001.jpg").write_bytes(b"no photo")
    photos = read_photo_set(folder, say=pytest.fail)
    dataset = ViewsDataset(photos, Augmentation(size=32, seed=0), num_views=2)
    views = dataset[Draw(0, 1)]
    assert views.photo_id == 2
    assert [bad.photo_id for bad in views.bad] == [1]
    assert np.array_equal(views.pixels, dataset[Draw(0, 2)].pixels)
    assert views.seeds == dataset[Draw(0, 2)].seeds
    for path in folder.iterdir():
        path.write_bytes(b"no photo")
    with pytest.raises(LoadingError, match="3 photos in a row"):
        dataset[Draw(0, 0)]


def test_too_many_unreadable_photos_stop_the_run() -> None:
    """One in a hundred is listed, the second is one too many; a repeated one counts once."""
    bad = BadPhotos(photo_set(100), max_share=0.01)
    assert bad.note([BadPhoto(7, "image_undecodable: broken")])
    assert bad.share(alone()) == "00007.jpg\timage_undecodable: broken\n"
    assert not bad.note([BadPhoto(7, "image_undecodable: broken")])
    assert bad.note([BadPhoto(8, "empty_image: 0 bytes")])
    bad.check()
    assert bad.share(alone()).endswith("00008.jpg\tempty_image: 0 bytes\n")
    with pytest.raises(BadPhotosError, match="2 of 100 photos cannot be read"):
        bad.check()


def test_a_drawn_photo_survives_the_project_s_own_decoder(tmp_path: Path) -> None:
    """What the collection holds is what every stage can read."""
    folder = draw_flat(tmp_path / "flat", num_photos=3)
    photo = open_photo(folder / "photo-000.jpg")
    assert max(photo.width, photo.height) == 64
