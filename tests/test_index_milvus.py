"""A folder whose rows were put into Milvus: Milvus Lite here, a cluster differs only by address."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server, socket
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from change_fixtures import EMBEDDER, Changing, hits
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fixtures import build, random_units, write_photos, write_vectors
from milvus_lite.adapter.grpc.server import start_server_in_thread
from pydantic import SecretStr
from stub_embedder import VectorEmbedder

import index.milvus_client
import index.milvus_lists
from index import compact, verify
from index.backend import FAISS, Backend
from index.changes.addition import add_photos
from index.changes.removal import remove_photos
from index.changes.writer import ChangeWriter
from index.current import live_manifest
from index.errors import BackendAwayError, IndexFolderError
from index.layout import Layout
from index.manifest import Manifest, MilvusPart
from index.milvus_address import MilvusAddress, parse_address
from index.milvus_client import open_client
from index.milvus_index import MilvusIndex, milvus_index
from index.milvus_lists import MilvusLists, expressions
from index.searcher import Searcher
from index.searching.where import parse_filters
from index.stats import read_stats

NUM_ROWS = 1600
ON_MILVUS = Backend("milvus")


def clustered(num_rows: int) -> np.ndarray:
    """Rows around 40 centres: as those of photos, they are not spread evenly."""
    random = np.random.default_rng(3)
    centres = random_units(40, seed=4)[random.integers(0, 40, num_rows)]
    rows = centres + random.normal(scale=0.15, size=centres.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A Milvus Lite of this process."""
    return Backend("milvus", SecretStr(str(tmp_path_factory.mktemp("milvus") / "milvus.db")))


@pytest.fixture
def client(milvus: Backend) -> Iterator[Any]:
    """What another program sees of it."""
    assert milvus.uri is not None
    with closing(open_client(parse_address(milvus.uri.get_secret_value()))) as opened:
        yield opened


@pytest.fixture
def out(milvus: Backend, tmp_path: Path) -> Path:
    """An index of five drawn photos, on Milvus."""
    build(write_photos(tmp_path / "photos", range(5)), tmp_path / "index", backend=milvus)
    return tmp_path / "index"


def manifest_of(out: Path) -> Manifest:
    return live_manifest(Layout(out))


def part_of(out: Path) -> MilvusPart:
    part = manifest_of(out).milvus
    assert part is not None
    return part


def recall(searcher: Searcher, queries: np.ndarray, nprobe: int) -> float:
    """The share of the ten nearest that is found in so many lists."""
    pairs = zip(
        searcher.rank(queries, 10, exact=True),
        searcher.rank(queries, 10, nprobe=nprobe),
        strict=True,
    )
    return float(np.mean([np.isin(true.ids, found.ids).mean() for true, found in pairs]))


def test_as_many_true_neighbours_are_found_as_by_faiss(milvus: Backend, tmp_path: Path) -> None:
    """Recall@10 differs by less than 0.01 at the same lists and candidates; all lists find all.

    Each trains its own lists, so in fewer of them one collection's recalls differ by chance; the
    means of several do not, which benchmarks/scale_milvus.py measures.
    """
    photos, out = write_vectors(tmp_path / "photos", clustered(NUM_ROWS)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), factory="IVF16,SQ8", shard_rows=1000, backend=milvus)
    queries = clustered(NUM_ROWS)[:200] + random_units(200, seed=8) * 0.3
    with (
        closing(Searcher.open(out)) as faiss,
        closing(Searcher.open(out, backend=ON_MILVUS)) as other,
    ):
        least = recall(other, queries, 1)
        recalls = {n: (recall(faiss, queries, n), recall(other, queries, n)) for n in (4, 8)}
        for one in (faiss, other):
            assert recall(one, queries, 16) == 1
        every = [one.rank(queries, 10, nprobe=16) for one in (faiss, other)]
    for of_faiss, of_milvus in recalls.values():
        assert abs(of_faiss - of_milvus) < 0.01
    assert least < 0.95 < recalls[4][1]
    for first, second in zip(*every, strict=True):
        assert first.ids.tolist() == second.ids.tolist()
        assert first.scores.tolist() == second.scores.tolist()


def test_more_neighbours_than_milvus_gives_are_found_by_comparing_every_row(
    milvus: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit costs time, no neighbour."""
    photos, out = write_vectors(tmp_path / "photos", random_units(60)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), backend=milvus)
    monkeypatch.setattr(MilvusLists, "most_candidates", 7)
    queries = random_units(3, seed=2)
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        for k in (5, 40):
            assert searcher.search(queries, k) == searcher.search(queries, k, exact=True)


def test_adds_deletes_and_filters_are_those_of_the_index(out: Path) -> None:
    """An add is found at once, a delete is not; conditions and exact cosines as ever."""
    with (
        closing(Searcher.open(out, backend=ON_MILVUS)) as searcher,
        closing(ChangeWriter(out)) as writer,
    ):
        serving = Changing(searcher, writer)
        before = hits(searcher, 2)
        assert before[0].id == 2
        assert before[0].score == pytest.approx(1, abs=1e-3)
        added = serving.add(9, label="dog")
        assert serving.delete(2)
        assert hits(searcher, 9)[0].id == added.id
        assert {one.id for one in hits(searcher, 2)} == {0, 1, 3, 4, added.id}
        assert len(hits(searcher, 2, k=3)) == 3
        allowed = searcher.matching(parse_filters(["label=dog"]))
        (found,) = searcher.search(searcher.embeddings([1]), 5, allowed=allowed)
        assert [one.id for one in found] == [added.id]
        with closing(Searcher.open(out)) as faiss:
            assert hits(faiss, 4) == hits(searcher, 4)


def test_what_is_published_is_loaded_once_and_named_by_an_alias(
    out: Path, milvus: Backend, client: Any
) -> None:
    """The manifest says where, without a word to give it again; builds of nothing load nothing."""
    first, actions = part_of(out), list[str]()
    assert read_stats(out)["milvus"] == first.collection
    assert milvus.uri is not None
    assert first.uri == milvus.uri.get_secret_value()
    assert first.rows == 5
    alias = first.collection.rpartition("_")[0]
    assert client.describe_alias(alias)["collection_name"] == first.collection
    assert not build(out.parent / "photos", out, steps=actions.append).is_new_generation
    assert part_of(out) == first
    assert not [action for action in actions if "milvus" in action]
    write_photos(out.parent / "photos", [7])
    build(out.parent / "photos", out)
    second = part_of(out)
    assert second.rows == 6
    assert client.describe_alias(alias)["collection_name"] == second.collection
    assert {first.collection, second.collection} <= set(client.list_collections())
    remove_photos(out, ids=[0])
    left = {name for name in client.list_collections() if name.startswith(alias)}
    assert left == {second.collection, part_of(out).collection}
    assert part_of(out).rows == 5


def test_every_program_that_publishes_loads_what_it_publishes(out: Path) -> None:
    """Photos that are added one by one, and shards that are merged."""
    write_photos(out.parent / "more", [8])
    add_photos(out, [out.parent / "more" / "0008.png"], EMBEDDER)
    assert part_of(out).rows == 6
    remove_photos(out, ids=[1, 2])
    assert compact.main(["--index", str(out), "--force"]) == 0
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        assert sorted(one.id for one in hits(searcher, 8)) == [0, 3, 4, 5]
        assert hits(searcher, 8)[0].id == 5


def test_a_generation_that_is_read_keeps_its_collection(out: Path, client: Any) -> None:
    """Two generations later its reader still finds; then it leaves."""
    first = part_of(out).collection
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        for gone in (0, 1):
            remove_photos(out, ids=[gone])
        assert len(hits(searcher, 0)) == 5
        assert first in client.list_collections()
    remove_photos(out, ids=[2])
    assert first not in client.list_collections()


class _KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("action", ["load into milvus", "milvus loaded", "write CURRENT"])
def test_a_build_that_was_killed_goes_on(
    milvus: Backend, tmp_path: Path, client: Any, action: str
) -> None:
    """Whole rows are not sent again; the alias names what is published, whenever it was killed."""
    photos, out, actions = (
        write_photos(tmp_path / "photos", range(4)),
        tmp_path / "index",
        list[str](),
    )

    def killed(name: str) -> None:
        if name == action:
            raise _KilledError

    with pytest.raises(_KilledError):
        build(photos, out, backend=milvus, steps=killed)
    build(photos, out, backend=milvus, steps=actions.append)
    assert actions.count("load into milvus") == (action == "load into milvus")
    part = part_of(out)
    alias = part.collection.rpartition("_")[0]
    assert client.describe_alias(alias)["collection_name"] == part.collection
    assert [name for name in client.list_collections() if name.startswith(alias)] == [
        part.collection
    ]


def test_a_collection_that_is_gone_or_short_is_refused_and_loaded_again(
    out: Path, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader says which, and what to do, and so does index.verify; a build does it."""
    part = part_of(out)
    client.drop_collection(part.collection)
    with pytest.raises(IndexFolderError, match=r"is not there; .*index.build --backend milvus"):
        Searcher.open(out, backend=ON_MILVUS)
    build(out.parent / "photos", out)
    assert part_of(out) == part
    assert verify.main(["--index", str(out)]) == 0
    client.delete(part.collection, ids=[0, 1])
    with pytest.raises(IndexFolderError, match="holds 3 rows instead of 5"):
        Searcher.open(out, backend=ON_MILVUS)
    assert verify.main(["--index", str(out)]) == 1
    assert "holds 3 rows instead of 5" in capsys.readouterr().out
    build(out.parent / "photos", out)
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        assert len(hits(searcher, 0)) == 5


def test_a_collection_that_somebody_changed_is_refused(
    milvus: Backend, tmp_path: Path, client: Any
) -> None:
    """As many rows, but others than the canaries know; or ids that the index has not."""
    photos, out = write_vectors(tmp_path / "photos", random_units(400)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), backend=milvus)
    name = part_of(out).collection
    other = list(random_units(400, seed=1))
    client.upsert(name, [{"id": n, "embedding": row} for n, row in enumerate(other)])
    with pytest.raises(IndexFolderError, match="does not hold this index's rows"):
        Searcher.open(out, backend=ON_MILVUS)
    client.insert(name, [{"id": 400 + n, "embedding": row} for n, row in enumerate(other)])
    client.delete(name, ids=list(range(400)))
    with pytest.raises(IndexFolderError, match="ids that this index has not"):
        Searcher.open(out, backend=ON_MILVUS)


def test_an_index_without_photos_is_searched(out: Path) -> None:
    """Nothing is loaded and nothing found; what is added is."""
    remove_photos(out, ids=range(5))
    assert part_of(out).rows == 0
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        assert hits(searcher, 0) == []
        with closing(ChangeWriter(out)) as writer:
            added = Changing(searcher, writer).add(9)
        assert [one.id for one in hits(searcher, 9)] == [added.id]


def test_a_gpu_for_the_lists_is_refused(out: Path) -> None:
    """Milvus has its own."""
    with pytest.raises(IndexFolderError, match="--search-device cuda is for the index's own"):
        Searcher.open(out, device="cuda", backend=ON_MILVUS)


def test_an_index_returns_to_its_own_lists(out: Path) -> None:
    """With --backend faiss, which every reader may ask for, whatever was published."""
    build(out.parent / "photos", out, backend=FAISS)
    assert manifest_of(out).milvus is None
    with pytest.raises(IndexFolderError, match=r"is in no Milvus; run index\.build"):
        Searcher.open_current(out, backend=ON_MILVUS)
    with closing(Searcher.open(out, backend=Backend())) as searcher:
        assert len(hits(searcher, 0)) == 5


def test_an_address_without_a_need_and_a_need_without_an_address_are_refused(
    tmp_path: Path,
) -> None:
    """Before anything is written."""
    photos = write_photos(tmp_path / "photos", [0])
    with pytest.raises(IndexFolderError, match="give its address as --milvus-uri"):
        build(photos, tmp_path / "index", backend=ON_MILVUS)
    with pytest.raises(IndexFolderError, match="leave out --milvus-uri"):
        build(photos, tmp_path / "index", backend=Backend(None, SecretStr("http://milvus")))


def test_codes_milvus_has_not_are_refused_before_anything_is_trained(
    milvus: Backend, tmp_path: Path
) -> None:
    """The message says which there are."""
    photos = write_vectors(tmp_path / "photos", random_units(100))
    with pytest.raises(IndexFolderError, match=r"'IVF2,SQ4': Milvus has no such codes; give"):
        build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF2,SQ4", backend=milvus)
    assert not list((tmp_path / "index" / "codebooks").iterdir())


def test_a_server_is_asked_as_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By its address, whose password is written nowhere; when it ends, whoever asks says so."""
    monkeypatch.setattr(index.milvus_client, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(index.milvus_lists, "_ANSWER_SECONDS", 1.0)
    server, database, port = start_server_in_thread(str(tmp_path / "lite"))
    out, uri = tmp_path / "index", f"http://root:hunter2@127.0.0.1:{port}"
    build(
        write_photos(tmp_path / "photos", range(5)),
        out,
        backend=Backend("milvus", SecretStr(uri)),
    )
    assert part_of(out).uri == f"http://127.0.0.1:{port}"
    written = (path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not [data for data in written if b"hunter2" in data]
    with closing(Searcher.open(out, backend=ON_MILVUS)) as searcher:
        assert hits(searcher, 3)[0].id == 3
        server.stop(grace=0).wait(10)
        database.close()
        with pytest.raises(IndexFolderError, match=r"searching collection .*start it"):
            hits(searcher, 3)
        with create_server(("127.0.0.1", port)), pytest.raises(BackendAwayError, match="start it"):
            Searcher.open(out, backend=ON_MILVUS)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_server_that_does_not_answer_is_named_without_its_password_in_no_time(
    out: Path, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    """One line, and what to do, once for all generations; nobody listens, or says nothing."""
    monkeypatch.setattr(index.milvus_client, "_CONNECT_SECONDS", 0.5)
    remove_photos(out, ids=[0])
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if is_silent:
            listener.listen()
        name = f"127.0.0.1:{listener.getsockname()[1]}"
        backend = Backend("milvus", SecretStr(f"http://root:hunter2@{name}"))
        start = perf_counter()
        with pytest.raises(BackendAwayError, match=rf"^milvus http://{name}: .*; start it") as said:
            Searcher.open(out, backend=backend)
        assert perf_counter() - start < 4
    assert "hunter2" not in str(said.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://milvus", MilvusAddress("http://milvus:19530")),
        ("http://root:a%40b@milvus:99/db/", MilvusAddress("http://milvus:99/db", "root:a@b")),
        ("https://token@milvus", MilvusAddress("https://milvus:443", "token")),
        ("http://[::1]:5", MilvusAddress("http://[::1]:5")),
        ("/some/one.db", MilvusAddress("/some/one.db")),
    ],
)
def test_an_address_is_written_down_without_its_secrets(text: str, address: MilvusAddress) -> None:
    """Host, port and database stay."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "milvus", "ftp://milvus", "http://", "http://a:b", "http://a?k=secret", "x.sqlite"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Without saying it: there may be a password in it."""
    with pytest.raises(IndexFolderError, match="not an address like") as said:
        parse_address(text)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("Flat", MilvusIndex("FLAT", {})),
        ("IVF512,SQfp16", MilvusIndex("IVF_FLAT", {"nlist": 512})),
        ("IVF16384_HNSW32,SQ8", MilvusIndex("IVF_SQ8", {"nlist": 16384})),
        ("IVF262144_HNSW32,RaBitQ", MilvusIndex("IVF_RABITQ", {"nlist": 65536})),
        ("IVF64,PQ8np", MilvusIndex("IVF_PQ", {"nlist": 64, "m": 8, "nbits": 8})),
    ],
)
def test_lists_and_codes_keep_their_numbers(factory: str, expected: MilvusIndex) -> None:
    """By Milvus's names; it makes no more than 65,536 lists."""
    assert milvus_index(factory) == expected


@given(flags=st.lists(st.booleans(), max_size=30), most=st.integers(1, 7))
@settings(max_examples=60)
def test_each_chosen_id_meets_one_expression(flags: list[bool], most: int) -> None:
    """And no other any, however few ids an expression may name."""
    loaded = np.arange(len(flags)) * 3
    found = list(expressions(loaded, np.array(flags, bool), most=most))
    for one, is_chosen in zip(loaded.tolist(), flags, strict=True):
        met = [eval(text or "True", {"id": one}) for text in found]  # noqa: S307 - ours
        assert sum(met) == is_chosen
    assert all(text.count(",") < most for text in found)
