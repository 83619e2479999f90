"""Checking an index folder: every damaged byte is named, and what can be made again is."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, random_units, write_photos, write_vectors
from stub_embedder import VectorEmbedder

from index.build import main as build_main
from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_encode import encode_rows
from index.layout import Layout
from index.searcher import Searcher
from index.searching.neighbours import Neighbour
from index.store import file_record
from index.upkeep.check import check_folder
from index.upkeep.check_shard import check_shard
from index.verify import main as verify_main
from multigrain.files import sha256_of

FACTORY = "IVF4,RaBitQ"
# The builder's own, which no reader needs and a build makes again.
OF_THE_BUILDER = {"LOCK", "build.sqlite", "quarantine.jsonl"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generations: two shards of 20, then some of the second left its lists."""
    folder = tmp_path_factory.mktemp("verify")
    photos = write_vectors(folder / "photos", random_units(40))
    options = {"factory": FACTORY, "shard_rows": 20}
    build(photos, folder / "index", VectorEmbedder(), **options)
    for number in range(20, 26):
        (photos / f"{number:06d}").unlink()
    build(photos, folder / "index", VectorEmbedder(), **options)
    return folder / "index"


@pytest.fixture
def out(original: Path) -> Path:
    """A copy beside the original, so that its photos and its checkpoint are the same."""
    copy = original.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original, copy)
    return copy


def checked_files(root: Path) -> list[Path]:
    """Every file of a generation, the older one's too; the journal of adds is of none."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.name not in OF_THE_BUILDER
        and Layout(root).adds not in path.parents
    ]


def one_of(root: Path, kind: str) -> Path:
    """The live generation's file of a kind."""
    layout = Layout(root)
    with closing(Searcher.open(root)) as searcher:
        manifest = searcher.manifest
    cleaned = next(part.folder for part in manifest.shards if part.codes is not None)
    return {
        "CURRENT": layout.current,
        "manifest": layout.manifest(manifest.generation),
        "bitmap": layout.root / manifest.tombstones.file,
        "catalog": layout.root / manifest.catalog.file,
        "checkpoint": layout.checkpoint(manifest.model.fingerprint),
        "trained.faiss": layout.trained(manifest.codebook),
        "rotation.f32": layout.rotation(manifest.codebook),
        "train.json": layout.train_report(manifest.codebook),
    }.get(kind, layout.shards / cleaned / kind)


def flip(path: Path, place: float = 0.5) -> None:
    """Change a bit, at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 1
    path.write_bytes(data)


def answers(out: Path) -> list[list[Neighbour]]:
    """Every live content, for some queries."""
    with closing(Searcher.open(out)) as searcher:
        return searcher.search(random_units(3, seed=9), 40)


@pytest.mark.parametrize("flags", [[], ["--deep"]])
def test_a_whole_folder_has_no_faults(
    original: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """Exit status 0; both generations are looked at."""
    assert len(list((original / "manifests").iterdir())) == 2
    assert verify_main(["--index", str(original), *flags]) == 0
    assert capsys.readouterr().out.endswith(" files, 0 faults\n")


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_flipped_bit_in_any_file_is_named(out: Path, place: float) -> None:
    """The deep check reads every byte, and says in which block."""
    for path in checked_files(out):
        flip(path, place)
        faults = check_folder(Layout(out), deep=True).faults
        named = [fault for fault in faults if fault.file == path or path.name in fault.what]
        assert named, path
        if path.name in ("emb.f16", "ivf.faiss", "coded.bits"):
            assert named[0].blocks == (0,)
        flip(path, place)
    assert not check_folder(Layout(out), deep=True).faults


@pytest.mark.parametrize("cut", [lambda size: size - 1, lambda size: size // 2, lambda _: 0])
def test_a_cut_file_is_named_by_the_fast_check(out: Path, cut: Callable[[int], int]) -> None:
    """By its size, by its hash where it is small, or by faiss."""
    for path in checked_files(out):
        data = path.read_bytes()
        os.truncate(path, cut(len(data)))
        faults = check_folder(Layout(out), deep=False).faults
        assert any(one.file == path or path.name in one.what for one in faults), path
        path.unlink()
        faults = check_folder(Layout(out), deep=False).faults
        # A manifest that CURRENT does not name is not missed.
        if path != out / "manifests" / "000001.json":
            assert any(one.file == path for one in faults), path
        path.write_bytes(data)


def test_blocks_are_named_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a checksum of its own."""
    monkeypatch.setattr("index.store._CRC_BLOCK_BYTES", 2**22)
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * 2**22))
    before = file_record(path).crc32
    flip(path, 0.9)
    assert [a == b for a, b in zip(before, file_record(path).crc32, strict=True)] == [
        True, True, False,
    ]  # fmt: skip


def test_the_shell_names_file_and_block(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In text and in JSON; exit status 1."""
    flip(damaged := one_of(out, "ivf.faiss"))
    name = str(damaged.relative_to(out))
    assert verify_main(["--index", str(out), "--deep"]) == 1
    assert f"{name}: bytes differ in block 0 of 64 MiB" in capsys.readouterr().out
    assert verify_main(["--index", str(out), "--deep", "--output", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["faults"] == [{"file": name, "what": "bytes differ", "blocks": [0]}]


def test_contents_that_contradict_each_other_are_faults(out: Path) -> None:
    """With checksums that agree: an id of another shard, one twice, and a row that is no unit."""
    layout = Layout(out)
    with closing(Searcher.open(out)) as searcher:
        manifest = searcher.manifest
    part = next(one for one in manifest.shards if one.codes is None)
    rows = np.fromfile(layout.embeddings(part.folder), "<f2").reshape(part.n, -1)
    encode_rows(
        layout.trained(manifest.codebook),
        rows,
        layout.lists(part.folder),
        rotation=Rotation(),
        first_id=part.first_id + 1,
        num_threads=1,
    )
    rows[3] *= 2
    rows.tofile(layout.embeddings(part.folder))
    folder = layout.shards / part.folder
    document = json.loads((folder / "SHARD.json").read_text())
    document["files"] = {
        name: file_record(folder / name).model_dump() for name in document["files"]
    }
    (folder / "SHARD.json").write_text(json.dumps(document))
    lying = part.model_copy(update={"sha256": sha256_of(folder / "SHARD.json")})
    live = np.ones(part.n, bool)
    faults = list(check_shard(layout, lying, dim=rows.shape[1], live=live, deep=True))
    assert [fault.what for fault in faults] == [
        "1 ids are not of this shard, 0 come twice",
        f"1 rows are no unit vectors, the first is that of id {part.first_id + 3}",
    ]


@pytest.mark.parametrize(
    "kind", ["ivf.faiss", "coded.bits", "SHARD.json", "trained.faiss", "rotation.f32"]
)
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_repair_makes_a_file_again_with_the_same_bytes(
    out: Path, capsys: pytest.CaptureFixture[str], kind: str, damage: Callable[[Path], None]
) -> None:
    """From the other files of the generation; nothing is left to be done."""
    path = one_of(out, kind)
    whole = path.read_bytes()
    damage(path)
    assert verify_main(["--index", str(out), "--deep", "--repair"]) == 0
    assert "made again, with the same hash" in capsys.readouterr().out
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "kind", ["emb.f16", "bitmap", "catalog", "checkpoint", "manifest", "CURRENT"]
)
def test_what_repair_cannot_make_a_build_makes(
    out: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Ids and answers are as before, and the folder is whole again."""
    found = answers(out)
    flip(one_of(out, kind))
    assert verify_main(["--index", str(out), "--deep", "--repair"]) == 1
    assert "the next index.build" in capsys.readouterr().out
    photos = out.parent / "photos"
    build(photos, out, VectorEmbedder(), factory=FACTORY, shard_rows=20)
    assert answers(out) == found
    assert verify_main(["--index", str(out), "--deep"]) == 0


@pytest.mark.parametrize("kind", ["emb.f16", "ivf.faiss", "SHARD.json", "coded.bits"])
def test_a_build_makes_a_removed_file_of_a_shard_again(out: Path, kind: str) -> None:
    """Lists from the rows, rows from the photos; the shard is the same one."""
    found, path = answers(out), one_of(out, kind)
    whole = path.read_bytes()
    path.unlink()
    embedder = VectorEmbedder()
    photos = out.parent / "photos"
    assert build(photos, out, embedder, factory=FACTORY, shard_rows=20).num_new == 0
    assert answers(out) == found
    if kind != "emb.f16":  # dead rows are zero now
        assert path.read_bytes() == whole
    assert verify_main(["--index", str(out), "--deep"]) == 0


@pytest.mark.parametrize("kind", ["trained.faiss", "rotation.f32", "train.json"])
def test_a_build_without_a_file_of_its_codebook_trains_again(out: Path, kind: str) -> None:
    """On the rows that live now; a generation that lost the file too is not kept."""
    found = answers(out)
    one_of(out, kind).unlink()
    photos = out.parent / "photos"
    build(photos, out, VectorEmbedder(), factory=FACTORY, shard_rows=20)
    assert answers(out) == found
    assert verify_main(["--index", str(out), "--deep"]) == 0


def test_a_row_whose_photo_has_gone_is_forgotten_not_given_out_again(out: Path) -> None:
    """Its id stays empty; a photo that comes back is embedded anew."""
    one_of(out, "emb.f16").unlink()
    photos = out.parent / "photos"
    last = photos / "000039"
    data = last.read_bytes()
    try:
        last.unlink()
        options = {"factory": FACTORY, "shard_rows": 20}
        build(photos, out, VectorEmbedder(), **options)
        assert len(answers(out)[0]) == 33
        last.write_bytes(data)
        assert build(photos, out, VectorEmbedder(), **options).num_new == 1
    finally:
        last.write_bytes(data)
    assert {one.id for one in answers(out)[0]} >= {40}
    assert verify_main(["--index", str(out), "--deep"]) == 0


def test_a_manifest_from_before_all_files_had_checksums_is_checked_too(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Its checkpoint by the fingerprint, its codebook by the name of the folder."""
    photos = write_photos(tmp_path / "photos", range(3))
    flags = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint)]
    assert build_main([*flags, "--out", str(tmp_path / "index")]) == 0
    layout = Layout(tmp_path / "index")
    manifest = layout.manifest("000001")
    document = json.loads(manifest.read_text())
    for key in ("checkpoint", "codebook_files"):
        del document[key]
    for part in document["shards"]:
        del part["codes"]
    manifest.write_text(json.dumps(document))
    layout.current.write_text(f"000001.json {sha256_of(manifest)}\n")
    assert check_folder(layout, deep=True).faults == []
    for path in (layout.trained(document["codebook"]), next(layout.models.iterdir())):
        flip(path)
        assert [fault.file for fault in check_folder(layout, deep=True).faults] == [path]
        flip(path)


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(IndexFolderError, match=r"index\.build"):
        check_folder(Layout(tmp_path), deep=False)
    assert verify_main(["--index", str(tmp_path)]) == 2
