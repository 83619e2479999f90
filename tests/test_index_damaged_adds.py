"""A journal of adds that is not as it was written: what is found, said, and kept from loss."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from change_fixtures import changing, found_ids
from index_fixtures import build, photo_bytes, write_photos

from index.errors import ChangesRefusedError
from index.searcher import Searcher
from index.verify import main as verify_main

BUILT = {number: number for number in range(3)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos 0 to 2, indexed; then 7 added under id 3, 1 deleted, 8 and 9 added as 4 and 5."""
    folder = tmp_path_factory.mktemp("damaged")
    out = folder / "index"
    build(write_photos(folder / "photos", range(3)), out)
    with changing(out) as serving:
        serving.add(7)
        serving.delete(1)
        serving.add(8)
        serving.add(9)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it, whose photos count as changed by the copying."""
    return shutil.copytree(original, tmp_path / "copy")


def lines_of(folder: Path) -> Path:
    return max((folder / "index" / "adds").glob("*.jsonl"))


def rows_of(folder: Path) -> Path:
    return lines_of(folder).with_suffix(".f16")


def flip_line(folder: Path, number: int) -> None:
    """Change a letter in a line, counted from 1."""
    lines = lines_of(folder).read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b'"kind"', b'"kinb"')
    lines_of(folder).write_bytes(b"".join(lines))


def lose_end_of_line(folder: Path) -> None:
    """Two lines become one."""
    lines = lines_of(folder).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"\n", b"\r")
    lines_of(folder).write_bytes(b"".join(lines))


def lose_lines(folder: Path, num_left: int = 3) -> None:
    """The last adds, as if the file had been written back from before them."""
    lines = lines_of(folder).read_bytes().splitlines(keepends=True)
    lines_of(folder).write_bytes(b"".join(lines[:num_left]))


def flip_row(folder: Path) -> None:
    """The lowest bit of a value in the row of id 4, which no norm would tell."""
    data = bytearray(rows_of(folder).read_bytes())
    data[len(data) // 2 - len(data) // 6] ^= 1
    rows_of(folder).write_bytes(data)


# What is done, what is found before and after a build, and what verify says.
DAMAGE: list[tuple[Callable[[Path], object], dict[int, int], dict[int, int], str]] = [
    (
        lambda folder: flip_line(folder, 1),
        {0: 0, 2: 2},
        {0: 0, 2: 2, 3: 7, 4: 8, 5: 9},
        "line 1 is damaged",
    ),
    (
        lambda folder: flip_line(folder, 2),
        {0: 0, 2: 2, 4: 8, 5: 9},
        {0: 0, 2: 2, 4: 8, 5: 9},
        "line 2 is damaged",
    ),
    (
        lambda folder: flip_line(folder, 5),
        {0: 0, 2: 2, 3: 7, 4: 8},
        {0: 0, 2: 2, 3: 7, 4: 8},
        "line 5 is damaged",
    ),
    (
        lose_end_of_line,
        BUILT | {4: 8, 5: 9},
        BUILT | {4: 8, 5: 9},
        "line 2 is damaged",
    ),
    (lose_lines, {0: 0, 2: 2, 3: 7}, {0: 0, 2: 2, 3: 7}, "2 rows whose lines are lost"),
    (lambda folder: lose_lines(folder, 1), BUILT, BUILT, "3 rows whose lines are lost"),
    (
        flip_row,
        {0: 0, 2: 2, 3: 7, 5: 9},
        {0: 0, 2: 2, 3: 7, 4: 8, 5: 9},
        "the row of id 4, line 4, is damaged",
    ),
    (
        lambda folder: os.truncate(rows_of(folder), 40),
        {0: 0, 2: 2, 3: 7},
        {0: 0, 2: 2, 3: 7, 4: 8, 5: 9},
        "the row of id 5, line 5, is damaged",
    ),
    (lambda folder: lines_of(folder).write_bytes(b""), BUILT, BUILT, "line 1 is damaged"),
    (lambda folder: lines_of(folder).unlink(), BUILT, BUILT, "line 1 is damaged"),
]


@pytest.mark.parametrize(("damage", "before", "after", "said"), DAMAGE)
def test_damage_costs_what_it_holds_and_no_id_comes_twice(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
    before: dict[int, int],
    after: dict[int, int],
    said: str,
) -> None:
    """The rest is found, also behind it; rows are made again from the bytes; verify names it."""
    out = folder / "index"
    damage(folder)
    assert found_ids(out) == before
    assert verify_main(["--index", str(out)]) == 1
    assert said in capsys.readouterr().out
    with caplog.at_level(logging.WARNING):
        build(folder / "photos", out)
    assert "adds" in caplog.text
    assert found_ids(out) == after
    assert verify_main(["--index", str(out), "--deep"]) == 0
    with changing(out) as serving:
        assert serving.add(20).id >= 6
    build(write_photos(folder / "photos", [21]), out)
    found = found_ids(out)
    assert found.items() >= after.items()
    assert min(found.keys() - after.keys()) >= 6


@pytest.mark.parametrize("damage", [one[0] for one in DAMAGE[1:8]])
def test_adds_go_on_behind_damage(folder: Path, damage: Callable[[Path], object]) -> None:
    """Under ids that nobody had; whoever reads on and whoever opens anew find the same."""
    out = folder / "index"
    damage(folder)
    before = found_ids(out)
    with changing(out) as serving, closing(Searcher.open(out)) as replica:
        assert serving.add(20) == (6, True)
        assert serving.add(8).id in ({4, 7} if 4 in before else {7})
        assert replica.refresh()
        assert replica.matching([]).tolist() == serving.searcher.matching([]).tolist()
    assert found_ids(out).items() >= (before | {6: 20}).items()


def test_a_journal_without_its_first_line_takes_no_adds_until_a_build(folder: Path) -> None:
    """Deletes it holds still count."""
    flip_line(folder, 1)
    with (
        changing(folder / "index") as serving,
        pytest.raises(ChangesRefusedError, match=r"damaged\); run index\.build"),
    ):
        serving.add(20)
    build(folder / "photos", folder / "index")
    with changing(folder / "index") as serving:
        assert serving.add(20).id == 6


def test_ids_of_a_lost_journal_are_not_given_again_when_the_build_had_kept_some(
    folder: Path,
) -> None:
    """Where its ids began stands in the builder's journal too."""
    out, given = folder / "index", list[int]()

    def change(action: str) -> None:
        if action == "rows synced" and not given:
            with changing(out) as serving:
                given.extend(serving.add(seed).id for seed in (30, 31))

    write_photos(folder / "photos", [20, 21, 22])
    # Two of the three are copies, so that fewer ids are needed than are kept.
    for name in ("0021.png", "0022.png"):
        shutil.copyfile(folder / "photos" / "0020.png", folder / "photos" / name)
    with pytest.raises(KeyboardInterrupt):
        build(folder / "photos", out, steps=_until("rows committed", change))
    lines_of(folder).write_bytes(b"")
    build(folder / "photos", out)
    with changing(out) as serving:
        assert serving.add(40).id > max(given)


def _until(last: str, steps: Callable[[str], None]) -> Callable[[str], None]:
    def call(action: str) -> None:
        steps(action)
        if action == last:
            raise KeyboardInterrupt

    return call


@pytest.mark.parametrize(
    ("tear", "said"),
    [
        (lambda folder: _append(lines_of(folder), b'{"kind":"add"'), "line 6 has no end"),
        (lambda folder: _append(rows_of(folder), b"abc"), "3 bytes of a row that is not whole"),
    ],
)
def test_repair_cuts_what_a_kill_left(
    folder: Path, capsys: pytest.CaptureFixture[str], tear: Callable[[Path], object], said: str
) -> None:
    """Nothing that was promised is lost, and nothing is left to be said."""
    out, found = folder / "index", found_ids(folder / "index")
    tear(folder)
    assert verify_main(["--index", str(out)]) == 1
    assert said in capsys.readouterr().out
    assert verify_main(["--index", str(out), "--repair"]) == 0
    assert "never came to its end left was cut off" in capsys.readouterr().out
    assert found_ids(out) == found


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_what_repair_cannot_mend_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged lines, rows, and bytes that were added; the status stays 1."""
    flip_line(folder, 2)
    flip_row(folder)
    data = photo_bytes(9)
    upload = folder / "index" / "uploads" / sha256(data).hexdigest()
    upload.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    flags = ["--index", str(folder / "index"), "--deep", "--output", "json", "--repair"]
    assert verify_main(flags) == 1
    answer = json.loads(capsys.readouterr().out)
    names = {str(path.relative_to(folder / "index")) for path in (lines_of(folder), upload)}
    assert names <= {one["file"] for one in answer["repairs"]}
    assert {one["is_whole"] for one in answer["repairs"]} == {False}
    assert {one["file"] for one in answer["faults"]} >= names


def test_a_folder_without_a_journal_is_whole(folder: Path) -> None:
    """One that was made before there were any."""
    shutil.rmtree(folder / "index" / "adds")
    assert verify_main(["--index", str(folder / "index")]) == 0
