"""Each stage alone, from Python and from the shell; run twice, the second time does nothing."""

from pathlib import Path

import pytest
from index_fixtures import build, durable_state, write_photos
from stub_embedder import StubEmbedder

from index.build import main as build_main
from index.errors import IndexFolderError
from index.stages import Stage

FACTORY = "IVF1,SQfp16"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 drawn photos, one of them no photo."""
    folder = write_photos(tmp_path / "photos", range(20))
    (folder / "bad.png").write_bytes(b"no photo")
    return folder


def run(photos: Path, out: Path, stage: Stage, embedder: StubEmbedder | None = None) -> list[str]:
    """One stage alone; gives the durable actions it took."""
    actions = list[str]()
    build(photos, out, embedder, factory=FACTORY, first=stage, last=stage, steps=actions.append)
    return actions


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file but the builder's own database and lock."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.name != "LOCK" and not path.name.startswith("build.sqlite")
    }


def test_stages_one_by_one_give_what_one_build_gives(photos: Path, tmp_path: Path) -> None:
    """Ids, rows, codebook, shards and bitmap are the same bytes."""
    build(photos, tmp_path / "whole", factory=FACTORY)
    for stage in Stage:
        run(photos, tmp_path / "index", stage)
    assert durable_state(tmp_path / "index") == durable_state(tmp_path / "whole")


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_run_twice_does_nothing_the_second_time(
    photos: Path, tmp_path: Path, stage: Stage
) -> None:
    """No photo is embedded, nothing trained, no file written again."""
    out = tmp_path / "index"
    build(photos, out, factory=FACTORY, last=stage)
    before = files(out)
    embedder = StubEmbedder()
    # A scan is recorded by number even where it finds nothing new.
    scanned = ["commit scan", "scan committed"] if stage == Stage.SCAN else []
    assert run(photos, out, stage, embedder) == scanned
    assert embedder.num_embedded == 0
    assert files(out) == before


@pytest.mark.parametrize(
    ("done", "stage", "word"),
    [
        (Stage.EMBED, Stage.ENCODE, "run the stage train"),
        (Stage.EMBED, Stage.PUBLISH, "run the stage train"),
        (Stage.TRAIN, Stage.MERGE, "run the stage encode"),
        (Stage.TRAIN, Stage.PUBLISH, "run the stage encode"),
    ],
)
def test_a_stage_that_lacks_an_earlier_one_says_which(
    photos: Path, tmp_path: Path, done: Stage, stage: Stage, word: str
) -> None:
    """Nothing is published."""
    build(photos, tmp_path / "index", factory=FACTORY, last=done)
    with pytest.raises(IndexFolderError, match=word):
        run(photos, tmp_path / "index", stage)
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_a_codebook_of_other_rows_is_not_taken_for_theirs(photos: Path, tmp_path: Path) -> None:
    """Photos that came after the stage train are among those the next one trains on."""
    out = tmp_path / "index"
    build(photos, out, factory=FACTORY, last=Stage.TRAIN)
    (early,) = (out / "codebooks").iterdir()
    (photos / "0003.png").unlink()
    write_photos(photos, [30])
    build(photos, out, factory=FACTORY)
    (used,) = (out / "codebooks").iterdir()
    assert used != early


def test_stages_from_the_shell(
    photos: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--until stops behind a stage and --from begins with one; a wrong order is refused."""
    flags = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint)]
    flags += ["--out", str(tmp_path / "index")]
    assert build_main([*flags, "--until", "embed"]) == 0
    assert "stopped behind stage embed: nothing is published" in capsys.readouterr().out
    assert not (tmp_path / "index" / "CURRENT").exists()
    assert build_main([*flags, "--from", "train"]) == 0
    assert "bad           1; listed in" in (said := capsys.readouterr().out)
    assert "published generation 000001" in said
    assert build_main([*flags, "--from", "publish", "--until", "scan"]) == 2
    assert "publish comes after scan" in capsys.readouterr().err
