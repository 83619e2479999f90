"""The two commands, as a user types them, with a real model."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from index_fixtures import photo_bytes, png_of
from PIL import Image, ImageDraw

from index.build import main as build_main
from index.search import main as search_main
from multigrain.checkpoint import read_document, save_checkpoint
from multigrain.model import MultiGrain


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six drawn photos and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        image = Image.new("RGB", (80, 60), (40 * number, 255 - 40 * number, 90))
        ImageDraw.Draw(image).ellipse((10, 10, 20 + 8 * number, 50), fill=(200, 30 * number, 0))
        (folder / f"{number}.png").write_bytes(png_of(image))
    (folder / "notes.txt").write_text("no photo")
    return folder


def flags(photos: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    return ["--photos", str(photos), "--checkpoint", str(checkpoint), "--out", str(out), *more]


def test_a_photo_finds_itself_from_the_shell(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Build, build again, search in every form, with the folder's own checkpoint."""
    out = tmp_path / "index"
    assert build_main(flags(photos, tiny_checkpoint, out)) == 0
    summary = capsys.readouterr().out
    table = dict(line.strip().split(maxsplit=1) for line in summary.splitlines())
    assert (table["photos"], table["new"]) == ("6", "6")
    assert table["rows"] == "6 (6 live), factory Flat"
    assert table["bad"].endswith(f"; listed in {out / 'quarantine.jsonl'}")
    assert build_main(flags(photos, tiny_checkpoint, out)) == 0
    assert "nothing changed: generation 000001 stays" in capsys.readouterr().out
    assert search_main(["--index", str(out), str(photos / "3.png"), "--limit", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["1", "1.0000", "3.png"]
    assert second.split()[0] == "2"
    assert search_main([str(photos / "4.png"), "--json", f"--index={out}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in answer] == [1, 2, 3, 4, 5, 6]
    assert answer[0]["file"] == str(photos / "4.png")
    words = [str(photos / "4.png"), "--index", str(out), "--output"]
    assert search_main([*words, "jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == answer
    assert search_main([*words, "csv", "--dedup", "1"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["rank"], row["id"], row["file"]) for row in rows] == [
        (str(hit["rank"]), hit["id"], hit["file"]) for hit in answer
    ]
    assert [float(row["score"]) for row in rows] == [hit["score"] for hit in answer]
    assert json.loads(rows[0]["metadata"]) == answer[0]["metadata"]
    assert rows[0]["collapsed"] == "0"


def test_without_a_gpu_the_cpu_builds_and_one_line_says_so(
    photos: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default; who asked for a GPU is told what to do, and nothing is made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_main(flags(photos, tiny_checkpoint, tmp_path / "one")) == 0
    line = "index.build: no GPU is visible: the CPU does the work\n"
    assert capsys.readouterr().err.count(line) == 1
    assert build_main(flags(photos, tiny_checkpoint, tmp_path / "two", "--device", "cuda")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'cuda': no CUDA device is visible; use cpu or auto, or see what hides it" in line
    assert not (tmp_path / "two").exists()
    assert build_main(flags(photos, tiny_checkpoint, tmp_path / "two", "--device", "cpu")) == 0
    assert "GPU" not in capsys.readouterr().err


def test_a_photo_behind_mapped_is_the_photo(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The switch takes no value; answers are those of lists in memory, at any recall here."""
    out = tmp_path / "index"
    build_main(flags(photos, tiny_checkpoint, out))
    photo = str(photos / "3.png")
    capsys.readouterr()
    assert search_main(["--index", str(out), photo]) == 0
    expected = capsys.readouterr().out
    assert search_main(["--index", str(out), "--recall", "0.9", "--mapped", photo]) == 0
    assert capsys.readouterr().out == expected


def test_more_bad_photos_than_allowed_exit_with_3_after_publishing(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The good photos are searchable all the same."""
    out = tmp_path / "index"
    assert build_main(flags(photos, tiny_checkpoint, out, "--max-bad", "0")) == 3
    assert "--max-bad 0" in capsys.readouterr().err
    assert (out / "CURRENT").exists()
    assert build_main(flags(photos, tiny_checkpoint, out, "--max-bad", "1")) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["--photos", "/nowhere"], "no such folder"),
        (["--checkpoint", "/nowhere"], "/nowhere"),
        (["--factory", "HNSW32"], "HNSW32"),
    ],
)
def test_a_wrong_value_exits_with_2_and_one_line(
    photos: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Sequence[str],
    word: str,
) -> None:
    """The line names the value."""
    arguments = flags(photos, tiny_checkpoint, tmp_path / "index")
    if change[0] == "--photos":
        arguments = arguments[2:]
    assert build_main([*arguments, *change, "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("index.build: ")
    assert word in line


def test_searching_with_what_is_no_photo_exits_with_2(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So does searching what is no index."""
    out = tmp_path / "index"
    build_main(flags(photos, tiny_checkpoint, out))
    capsys.readouterr()
    assert search_main(["--index", str(out), str(photos / "notes.txt")]) == 2
    assert search_main(["--index", str(tmp_path), str(photos / "0.png")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_without_faiss_one_line_says_what_to_install(
    photos: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was embedded before it is said."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert build_main(flags(photos, tiny_checkpoint, tmp_path / "index")) == 2
    assert search_main(["--index", str(tmp_path), str(photos / "0.png")]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert "install multigrain-retrieval[cpu] or multigrain-retrieval[gpu]" in line
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("module", ["index.build", "index.search"])
def test_help_comes_without_loading_torch_or_faiss(module: str) -> None:
    """It names the flags."""
    script = (
        f"import sys; from {module} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'faiss', 'sqlalchemy'} & set(sys.modules)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert "--device" in done.stdout
    assert time.monotonic() - start < 10  # a loaded machine; the modules are what is judged


def test_an_odd_photo_is_searched_by_content_not_by_name(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PNG called .jpg, or called nothing, is a photo."""
    (photos / "odd.jpg").write_bytes(photo_bytes(1))
    (photos / "odd").write_bytes(photo_bytes(2))
    build_main(flags(photos, tiny_checkpoint, tmp_path / "index"))
    assert capsys.readouterr().out.splitlines()[0].split() == ["photos", "8"]


@pytest.mark.parametrize(
    "words", [["a.jpg", "b.jpg"], ["--photo", "a.jpg", "b.jpg"], ["--photo=a.jpg", "b.jpg"]]
)
def test_two_photos_are_refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """None is left out silently."""
    assert search_main(["--index", "nowhere", *words]) == 2
    assert "one photo at a time" in capsys.readouterr().err


def test_a_checkpoint_that_was_exchanged_is_refused(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's checkpoint file holds another model than the rows were made with."""
    out = tmp_path / "index"
    build_main(flags(photos, tiny_checkpoint, out))
    document = read_document(tiny_checkpoint)
    (held,) = (out / "models").iterdir()
    save_checkpoint(held, MultiGrain.build(document), document)
    assert search_main(["--index", str(out), str(photos / "0.png")]) == 2
    assert "built with checkpoint" in capsys.readouterr().err


def test_a_search_finds_only_what_meets_the_conditions(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several `--where` all hold; a bare photo may stand anywhere; a wrong condition is named."""
    for number in (1, 3, 5):
        (photos / "odd").mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / "odd" / f"{number}.png")
    out = tmp_path / "index"
    build_main(flags(photos, tiny_checkpoint, out))
    capsys.readouterr()
    photo = str(photos / "0.png")
    words = ["--index", str(out), "--where", "label=odd", "--mapped", photo, "--where", "width=80"]
    assert search_main(words) == 0
    found = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(found) == ["odd/1.png", "odd/3.png", "odd/5.png"]
    assert search_main(["--index", str(out), "--where", "width>80,label=odd", photo, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert search_main(["--index", str(out), "--where", "colour=red", photo]) == 2
    assert "no such column" in capsys.readouterr().err


def test_a_copy_is_collapsed_into_the_photo_it_copies(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A neighbour says for how many it stands, in both forms, and the next one moves up."""
    (photos / "copy.png").write_bytes((photos / "3.png").read_bytes() + b"more")
    out = tmp_path / "index"
    build_main(flags(photos, tiny_checkpoint, out))
    capsys.readouterr()
    words = ["--index", str(out), str(photos / "3.png"), "--limit", "3"]
    assert search_main(words) == 0
    plain = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in plain[:2]] == ["1.0000", "1.0000"]
    assert search_main([*words, "--dedup", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["1", "1.0000", "+1", plain[0][2]]
    assert [line[3] for line in lines[1:2]] == [plain[2][2]]
    assert len(lines) == 3
    assert search_main([*words, "--dedup", "1", "--json"]) == 0
    assert [hit["collapsed"] for hit in json.loads(capsys.readouterr().out)] == [1, 0, 0]
