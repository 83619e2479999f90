"""Photos that are gone all at once are not taken for deleted ones."""

from pathlib import Path

import pytest
from index_fixtures import build, random_units, write_photos, write_vectors
from stub_embedder import VectorEmbedder

from index.build import main as build_main
from index.collection.vanished import vanished_text
from index.errors import IndexFolderError
from index.plan import plan_build


def files_below(folder: Path) -> dict[str, bytes]:
    """What readers and builders would find, but for the database's log."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "-wal" not in path.name and "-shm" not in path.name
    }


@pytest.mark.parametrize(
    ("num_before", "num_now", "outcome"),
    [
        (0, 0, "goes on"),
        (1, 0, "refused"),
        (99, 1, "goes on"),
        (100, 50, "goes on"),
        (100, 49, "refused"),
    ],
)
def test_none_left_or_most_of_many_gone_is_refused(
    num_before: int, num_now: int, outcome: str
) -> None:
    """Fewer than a hundred may have been sorted out by hand."""
    text = vanished_text("photos/", num_before, num_now)
    assert (text is not None) == (outcome == "refused")


def test_an_empty_mount_point_changes_nothing_until_it_is_allowed(tmp_path: Path) -> None:
    """The folder is there and readable, but empty; mounted again, nothing is new."""
    rows = random_units(3)
    photos, other = tmp_path / "photos", write_vectors(tmp_path / "other", random_units(2, seed=1))
    write_vectors(photos, rows)
    out = tmp_path / "index"
    build([photos, other], out, VectorEmbedder())
    photos.rename(tmp_path / "elsewhere")
    photos.mkdir()
    before = files_below(out)
    with pytest.raises(IndexFolderError, match=f"{photos}/: shows 0 photos, .* found 3.*--allow-v"):
        build([photos, other], out, VectorEmbedder())
    assert files_below(out) == before
    (said,) = plan_build([photos, other], out, VectorEmbedder(), shard_rows=9).vanished
    assert "shows 0 photos" in said
    photos.rmdir()
    (tmp_path / "elsewhere").rename(photos)
    assert not build([photos, other], out, VectorEmbedder()).is_new_generation
    assert plan_build([photos, other], out, VectorEmbedder(), shard_rows=9).vanished == []
    for file in photos.iterdir():
        file.unlink()
    assert build([photos, other], out, VectorEmbedder(), allow_vanished=True).num_live == 2
    assert build([photos, other], out, VectorEmbedder()).num_live == 2


def test_a_list_whose_files_cannot_be_found_is_refused(tmp_path: Path) -> None:
    """It still names them, but none is there."""
    write_vectors(tmp_path / "photos", random_units(3))
    names = "".join(f"photos/00000{number}\n" for number in range(3))
    (tmp_path / "list.csv").write_text(f"path\n{names}")
    build(tmp_path / "list.csv", tmp_path / "index", VectorEmbedder())
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(IndexFolderError, match="shows 0 photos"):
        build(tmp_path / "list.csv", tmp_path / "index", VectorEmbedder())


def test_the_shell_says_what_to_do(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and status 2; --plan shows it; --allow-vanished goes on."""
    photos = write_photos(tmp_path / "photos", range(2))
    words = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint)]
    words += ["--out", str(tmp_path / "index"), "--device", "cpu"]
    assert build_main(words) == 0
    for file in photos.iterdir():
        file.unlink()
    capsys.readouterr()
    assert build_main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a disk not mounted?" in line
    assert build_main([*words, "--plan"]) == 0
    assert "is a disk not mounted? A build refuses" in capsys.readouterr().out
    assert build_main([*words, "--allow-vanished"]) == 0
    assert "published generation 000002" in capsys.readouterr().out
