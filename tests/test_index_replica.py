"""An index is sent to an object store, and read through a copy that is checked and kept small."""

import shutil
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from change_fixtures import changing, hits
from index_fixtures import build, photo_bytes, write_photos
from stub_embedder import StubEmbedder

from index.changes.writer import ChangeWriter
from index.current import Pointer, live_manifest
from index.errors import ChangesRefusedError, IndexFolderError
from index.layout import Layout
from index.push import main as push_main
from index.replica.local_copy import IndexCopy
from index.replica.push import push
from index.replica.source import IndexSource
from index.searcher import Searcher
from index.stats import main as stats_main
from index.verify import main as verify_main
from multigrain.locations import Url
from multigrain.object_store import ObjectStore, ObjectStoreError

pytest_plugins = ["object_fixtures"]

NUM_PHOTOS = 6


@pytest.fixture(scope="module")
def two_generations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index with one generation, and the same index with a second one."""
    folder = tmp_path_factory.mktemp("replica")
    photos = write_photos(folder / "photos", range(NUM_PHOTOS))
    build(photos, folder / "first")
    shutil.copytree(folder / "first", folder / "second")
    write_photos(photos, [NUM_PHOTOS])
    build(photos, folder / "second")
    return folder / "first", folder / "second"


@pytest.fixture
def first(two_generations: tuple[Path, Path]) -> Path:
    return two_generations[0]


@pytest.fixture
def second(two_generations: tuple[Path, Path]) -> Path:
    return two_generations[1]


def names_at(url: Url) -> set[str]:
    """Every object of an address."""
    return set(ObjectStore(url).sizes(""))


def found(root: Path, seed: int) -> str:
    """The path of the photo that a search with the drawn photo `seed` finds first."""
    embedder = StubEmbedder()
    query = embedder.embed_pixels([embedder.read(photo_bytes(seed)).pixels])
    with closing(Searcher.open(root)) as searcher:
        ((best,),) = searcher.search(query, 1)
    return best.uri


def generation(root: Path) -> str:
    """The generation that opens, every byte of which is as its manifest says."""
    with closing(Searcher.open_current(root)) as searcher:
        searcher.check_files()
        return searcher.generation


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("scheme", ["s3", "memory", "file"])
def test_what_was_pushed_is_found_through_a_copy(
    scheme: str, memory: Url, first: Path, second: Path, tmp_path: Path
) -> None:
    """A search in the copy finds what one in the folder finds; a second push brings the rest."""
    url = {"s3": Url("s3://bucket/a/photos"), "file": Url(f"file://{tmp_path}/there")}.get(
        scheme, memory
    )
    source = IndexSource(url, cache_dir=tmp_path / "cache")
    push(first, url)
    assert found(source.ready(), 3) == "0003.png"
    assert generation(source.root) == "000001"
    push(second, url)
    assert found(source.ready(), NUM_PHOTOS) == f"{NUM_PHOTOS:04d}.png"
    assert generation(source.root) == "000002"


def test_only_what_is_missing_is_sent(memory: Url, first: Path, second: Path) -> None:
    """The same generation again sends nothing; the next one no shard that is there."""
    once = push(first, memory)
    assert once.num_sent == len(names_at(memory)) - 2  # the manifest and CURRENT
    again = push(first, memory)
    assert (again.num_sent, again.num_there) == (0, once.num_sent)
    then = push(second, memory)
    assert 0 < then.num_there < once.num_sent


def test_a_killed_push_is_not_seen_and_the_next_one_goes_on(
    memory: Url, first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was sent last, readers find the generation before, until CURRENT is written."""
    push(first, memory)
    upload = ObjectStore.upload
    num_sent = 0
    while True:
        num_left = num_sent

        def upload_some(store: ObjectStore, source: Path, name: str) -> None:
            nonlocal num_left
            if num_left == 0:
                raise ObjectStoreError("killed")
            num_left -= 1
            upload(store, source, name)

        monkeypatch.setattr(ObjectStore, "upload", upload_some)
        try:
            push(second, memory)
        except ObjectStoreError:
            copy = IndexCopy(memory, tmp_path / f"{num_sent}")
            copy.update()
            assert generation(copy.root) == "000001"
            num_sent += 1
            continue
        break
    assert num_sent > 0
    copy = IndexCopy(memory, tmp_path / "whole")
    copy.update()
    assert generation(copy.root) == "000002"


def test_the_generation_before_stays_and_older_ones_leave(
    memory: Url, first: Path, second: Path, tmp_path: Path
) -> None:
    """After a third push the first one's own files are gone; strange objects stay."""
    third = shutil.copytree(second, tmp_path / "third")
    photos = write_photos(tmp_path / "more", [40, 41])
    build([photos], third)
    push(first, memory)
    ObjectStore(memory).write("models/of-somebody-else", b"x")
    push(second, memory)
    done = push(third, memory)
    names = names_at(memory)
    assert done.num_removed >= 3
    assert "models/of-somebody-else" in names
    kept = {name for name in names if name.startswith(("manifests/", "catalogs/", "tombstones/"))}
    assert {Path(name).stem for name in kept} == {"000002", "000003"}
    copy = IndexCopy(memory, tmp_path / "copy")
    copy.update()
    assert generation(copy.root) == "000003"


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_of_the_copy_is_fetched_again(
    damage: str, memory: Url, first: Path, tmp_path: Path
) -> None:
    """One that was cut by the next update, one with a flipped bit when it is asked for."""
    push(first, memory)
    copy = IndexCopy(memory, tmp_path / "copy")
    copy.update()
    (path,) = Layout(copy.root).shards.glob("*/emb.f16")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    copy.update(deep=damage == "flipped")
    assert path.read_bytes() == whole


def test_a_copy_that_does_not_open_is_mended(memory: Url, first: Path, tmp_path: Path) -> None:
    """Damage that opening meets is compared with the checksums, and the search goes on."""
    push(first, memory)
    source = IndexSource(memory, cache_dir=tmp_path)
    source.ready()
    (lists,) = Layout(source.root).shards.glob("*/ivf.faiss")
    lists.write_bytes(bytes(lists.stat().st_size))
    source.open(Searcher.open).close()
    assert generation(source.root) == "000001"


def test_damage_in_the_store_is_named_and_nothing_is_taken_up(
    memory: Url, first: Path, tmp_path: Path
) -> None:
    """A file that is not the manifest's is refused by its address, and CURRENT is not written."""
    push(first, memory)
    (name,) = [one for one in names_at(memory) if one.endswith("emb.f16")]
    data = ObjectStore(memory).read(name)
    ObjectStore(memory).write(name, bytes([data[0] ^ 1]) + data[1:])
    copy = IndexCopy(memory, tmp_path / "copy")
    with pytest.raises(IndexFolderError, match=f"{memory}/{name}: damaged"):
        copy.update()
    assert not copy.has_generation
    assert not [path for path in copy.root.rglob("*") if ".tmp" in path.name]


def test_no_manifest_leads_out_of_the_copy(memory: Url, first: Path, tmp_path: Path) -> None:
    """A name that climbs out of the folder is refused before anything is written there."""
    push(first, memory)
    store, manifest = ObjectStore(memory), live_manifest(Layout(first))
    outside = manifest.catalog.model_copy(update={"file": "catalogs/../../outside"})
    data = manifest.model_copy(update={"catalog": outside}).to_bytes()
    store.write("outside", b"x" * manifest.catalog.size)
    store.write("manifests/000001.json", data)
    store.write("CURRENT", Pointer("000001", sha256(data).hexdigest()).line)
    with pytest.raises(IndexFolderError, match="outside of the index"):
        IndexCopy(memory, tmp_path / "copy").update()
    assert not (tmp_path / "outside").exists()


def test_a_file_lost_in_the_store_is_named(memory: Url, first: Path, tmp_path: Path) -> None:
    """What CURRENT needs and is not there ends the update with its address."""
    push(first, memory)
    (name,) = [one for one in names_at(memory) if one.endswith("ivf.faiss")]
    ObjectStore(memory).remove(name)
    with pytest.raises(IndexFolderError, match=f"{memory}/{name}: not there"):
        IndexCopy(memory, tmp_path / "copy").update()


def test_a_generation_retired_while_it_is_fetched_gives_way_to_the_next(
    memory: Url, first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that meets a hole looks at CURRENT again."""
    push(first, memory)
    download = ObjectStore.download

    def publish_then_download(store: ObjectStore, name: str, target: Path) -> None:
        if name.startswith("catalogs/000001"):
            push(second, memory)
            store.remove(name)
        download(store, name, target)

    monkeypatch.setattr(ObjectStore, "download", publish_then_download)
    copy = IndexCopy(memory, tmp_path / "copy")
    copy.update()
    assert generation(copy.root) == "000002"


def test_old_generations_leave_the_copy(
    memory: Url, first: Path, second: Path, tmp_path: Path
) -> None:
    """The live one, the one before and those being read stay, with their files."""
    third = shutil.copytree(second, tmp_path / "third")
    build([write_photos(tmp_path / "more", [40])], third)
    fourth = shutil.copytree(third, tmp_path / "fourth")
    build([write_photos(tmp_path / "most", [50])], fourth)
    copy = IndexCopy(memory, tmp_path / "copy")
    push(first, memory)
    copy.update()
    reader = Searcher.open(copy.root)
    for root in (second, third):
        push(root, memory)
        copy.update()
    manifests = Layout(copy.root).manifests
    assert {path.stem for path in manifests.iterdir()} == {"000001", "000002", "000003"}
    reader.close()
    push(fourth, memory)
    copy.update()
    assert {path.stem for path in manifests.iterdir()} == {"000003", "000004"}
    assert {path.stem for path in Layout(copy.root).catalogs.iterdir()} == {"000003", "000004"}


def test_what_was_fetched_is_read_while_the_store_is_away(
    memory: Url, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an answer the copy serves, and an address that was never fetched ends in an error."""
    push(first, memory)
    IndexSource(memory, cache_dir=tmp_path).ready()

    def no_answer(_store: ObjectStore, name: str, **_options: int) -> bytes:
        raise ObjectStoreError(f"{name}: no answer")

    monkeypatch.setattr(ObjectStore, "read", no_answer)
    assert found(IndexSource(memory, cache_dir=tmp_path).ready(), 3) == "0003.png"
    with pytest.raises(ObjectStoreError, match="no answer"):
        IndexSource(Url("memory://tests/other"), cache_dir=tmp_path).ready()


def test_another_index_is_not_put_over_the_one_there(
    memory: Url, first: Path, second: Path, tmp_path: Path
) -> None:
    """An older generation, or one of the same name and other bytes, is refused."""
    push(second, memory)
    with pytest.raises(IndexFolderError, match="holds generation 000002, the folder's is 000001"):
        push(first, memory)
    other = tmp_path / "other"
    build(write_photos(tmp_path / "a", [70]), other)
    build([write_photos(tmp_path / "b", [71])], other)
    with pytest.raises(IndexFolderError, match="another index"):
        push(other, memory)


def test_a_damaged_file_is_not_sent(memory: Url, first: Path, tmp_path: Path) -> None:
    """The push ends with the file's name before CURRENT is written."""
    root = shutil.copytree(first, tmp_path / "index")
    (rows,) = Layout(root).shards.glob("*/emb.f16")
    data = rows.read_bytes()
    rows.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(IndexFolderError, match=r"emb\.f16: missing or damaged"):
        push(root, memory)
    assert "CURRENT" not in names_at(memory)


def test_a_copy_is_only_read(memory: Url, first: Path, tmp_path: Path) -> None:
    """Adds, deletes and builds are refused, and the reason names where the index comes from."""
    push(first, memory)
    source = IndexSource(memory, cache_dir=tmp_path / "cache")
    root = source.ready()
    with pytest.raises(ChangesRefusedError, match=f"a copy of {memory}, which is only read"):
        ChangeWriter(root)
    with pytest.raises(ChangesRefusedError, match="build and push again"):
        build(tmp_path, root)


def test_photos_added_through_a_service_are_sent_without_their_bytes_which_is_said(
    memory: Url, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found through a copy, and one line says that they have no thumbnail there."""
    root = shutil.copytree(first, tmp_path / "index")
    with changing(root) as serving:
        serving.add(80)
    build(first.parent / "photos", root)
    assert push_main(["--index", str(root), "--to", str(memory)]) == 0
    said = capsys.readouterr().err
    assert "1 photos were added through a service; readers there find them, without thumb" in said
    assert not [name for name in names_at(memory) if name.startswith("uploads/")]
    with closing(Searcher.open(IndexSource(memory, cache_dir=tmp_path / "cache").ready())) as copy:
        best = hits(copy, 80)[0]
        assert best.score == pytest.approx(1, abs=1e-3)
        assert copy.read_photo(best.id) is None


@pytest.mark.usefixtures("s3")
def test_the_tools_take_a_url(
    first: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """index.push sends, index.stats and index.verify read through the copy in --cache-dir."""
    url = "s3://bucket/tools/photos"
    assert push_main(["--index", str(first), "--to", f"{url}/"]) == 0
    assert "generation 000001" in capsys.readouterr().out
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert stats_main(["--index", url, *cache]) == 0
    assert f"live         {NUM_PHOTOS}" in capsys.readouterr().out
    assert verify_main(["--index", url, "--deep", *cache]) == 0
    (rows,) = (tmp_path / "cache").rglob("emb.f16")
    rows.write_bytes(bytes(rows.stat().st_size))
    assert verify_main(["--index", url, "--deep", *cache]) == 1
    assert verify_main(["--index", url, "--deep", "--repair", *cache]) == 0
