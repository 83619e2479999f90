"""Choosing, training and using a codebook: strings, k-means, rotation, encoding, bytes."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from index_fixtures import (
    build,
    durable_state,
    exact_neighbours,
    random_units,
    write_vectors,
)
from numpy.typing import NDArray
from stub_embedder import VectorEmbedder

import index.faiss_encode
from index.build import main as build_main
from index.codebook.footprint import choose_factory, footprint
from index.codebook.kmeans import Clusters, spherical_kmeans, two_level_kmeans
from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_encode import encode_rows
from index.faiss_train import train_codebook
from index.searcher import Searcher
from index.store import file_record

WIDE = 64


def decaying_units(num_rows: int, *, seed: int) -> NDArray[np.float16]:
    """Unit rows whose dimensions are ordered by variance, as after PCA: fp16 [n, 64]."""
    spread = np.exp(-np.arange(WIDE) / 8)
    rows = np.random.default_rng(seed).normal(size=(num_rows, WIDE)) * spread
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def clustered_units(num_rows: int, *, seed: int) -> NDArray[np.float16]:
    """Unit rows around 40 directions: fp16 [n, 64]."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, WIDE))
    rows = centres[random.integers(0, 40, num_rows)] + 0.6 * random.normal(size=(num_rows, WIDE))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def encoded(
    folder: Path, factory: str, rows: NDArray[np.float16], rotation: Rotation
) -> tuple[Path, Path]:
    """Train on the rows and encode them: the trained file and the lists."""
    folder.mkdir()
    trained, lists = folder / "trained.faiss", folder / "ivf.faiss"
    options = {"rotation": rotation, "num_threads": 2}
    train_codebook(factory, rows, trained, seed=3, **options)
    encode_rows(trained, rows, lists, first_id=0, **options)
    return trained, lists


@pytest.mark.parametrize(
    ("num_rows", "dim", "ram", "string"),
    [
        (623, 512, None, "Flat"),
        (20_000, 512, 30 * 10**6, "IVF512,SQfp16"),
        (20_000, 512, 20 * 10**6, "IVF512,RaBitQ"),
        (20_000, 2048, None, "IVF512,SQ8"),
        (20_000, 2048, 20 * 10**6, None),
        (10**6, 512, 600 * 10**6, "IVF16384_HNSW32,SQ8"),
        (10**6, 512, 500 * 10**6, "IVF16384_HNSW32,RaBitQ"),
        (2 * 10**6, 2048, None, "IVF16384_HNSW32,RaBitQ"),
        (10**7, 512, 8 * 10**9, "IVF65536_HNSW32,SQ8"),
        (10**7, 512, 3 * 10**9, "IVF65536_HNSW32,RaBitQ"),
    ],
)
def test_the_richest_string_that_fits_the_memory_is_taken(
    num_rows: int, dim: int, ram: int | None, string: str | None
) -> None:
    """Where none fits, the least that would is said."""
    sizes = {"num_live": num_rows, "num_rows": num_rows, "num_shards": -(-num_rows // 10**6)}
    options = sizes | {"dim": dim, "ram": ram}
    if string is not None:
        assert choose_factory(**options) == string
        return
    with pytest.raises(IndexFolderError, match="IVF512,RaBitQ takes the least, ") as caught:
        choose_factory(**options)
    least = int(str(caught.value).split("the least, ")[1].split()[0])
    assert choose_factory(**options | {"ram": least}) == "IVF512,RaBitQ"


def test_a_string_that_was_asked_for_is_held_to_the_memory_too() -> None:
    """It overrides the table, not what the machine has."""
    options = {"num_live": 1000, "num_rows": 1000, "num_shards": 1, "dim": 64}
    assert choose_factory(**options, ram=None, factory="IVF4,Flat") == "IVF4,Flat"
    with pytest.raises(IndexFolderError, match=r"--ram 1000 .*IVF4,Flat takes the least"):
        choose_factory(**options, ram=1000, factory="IVF4,Flat")


@pytest.mark.parametrize("word", ["much", "3GX", "-1"])
def test_memory_that_is_no_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    """The flag is named."""
    flags = ["--photos", str(tmp_path), "--checkpoint", "x", "--out", str(tmp_path / "index")]
    with pytest.raises(SystemExit):
        build_main([*flags, "--ram", word])
    assert "--ram" in capsys.readouterr().err


def test_a_build_takes_the_string_that_fits(tmp_path: Path) -> None:
    """Nothing is published when none does, and a larger bound goes on from there."""
    photos = write_vectors(tmp_path / "photos", random_units(30))
    with pytest.raises(IndexFolderError, match="Flat takes the least"):
        build(photos, tmp_path / "index", VectorEmbedder(), ram=1000)
    assert not (tmp_path / "index" / "CURRENT").exists()
    embedder = VectorEmbedder()
    report = build(photos, tmp_path / "index", embedder, ram=10_000)
    assert (report.factory, embedder.num_embedded) == ("Flat", 0)


@pytest.mark.parametrize(
    "factory",
    ["Flat", "IVF16,SQfp16", "IVF16,SQ8", "IVF16,RaBitQ", "IVF64_HNSW32,SQ8"],
)
def test_the_bytes_of_a_row_are_those_of_the_files(tmp_path: Path, factory: str) -> None:
    """Lists and codebook agree within 2 %, the store to the byte."""
    rows = clustered_units(8000, seed=1)
    rotation = Rotation.random(WIDE, seed=1) if "RaBitQ" in factory else Rotation()
    trained, lists = encoded(tmp_path / "one", factory, rows, rotation)
    part = footprint(factory, num_rows=len(rows), dim=WIDE, num_shards=1)
    assert part.lists == pytest.approx(lists.stat().st_size, rel=0.02)
    assert part.store == rows.nbytes
    rotation.write(tmp_path / "rotation.f32")
    written = [path for path in (trained, tmp_path / "rotation.f32") if path.exists()]
    # A codebook of a few centroids is mostly headers.
    held = sum(path.stat().st_size for path in written)
    assert part.codebook == pytest.approx(held, rel=0.1, abs=20_000)


def similarity(rows: NDArray[np.float16], clusters: Clusters) -> float:
    """The mean cosine of a row and its centroid."""
    return float((rows.astype(np.float32) @ clusters.centroids.T).max(axis=1).mean())


def test_kmeans_is_as_good_as_faiss_and_repeats_to_the_bit() -> None:
    """The same seed gives the same bytes, another seed others."""
    rows = clustered_units(3000, seed=2)
    ours, again = (spherical_kmeans(rows, 48, seed=5) for _ in range(2))
    assert ours.centroids.tobytes() == again.centroids.tobytes()
    assert spherical_kmeans(rows, 48, seed=6).centroids.tobytes() != ours.centroids.tobytes()
    assert np.allclose(np.linalg.norm(ours.centroids, axis=1), 1, atol=1e-5)
    assert ours.sizes.sum() == 3000
    theirs = faiss.Kmeans(WIDE, 48, niter=10, spherical=True, seed=5)
    theirs.train(rows.astype(np.float32))
    assert similarity(rows, ours) > 0.99 * similarity(rows, Clusters(theirs.centroids, ours.sizes))


def test_kmeans_in_blocks_of_fp16_is_that_of_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are too many to be made fp32 at once give the same clusters."""
    rows = clustered_units(1000, seed=2)
    whole = spherical_kmeans(rows, 16, seed=5)
    monkeypatch.setattr("index.codebook.kmeans.VALUES_AT_ONCE", 0)
    assert spherical_kmeans(rows, 16, seed=5).centroids.tobytes() == whole.centroids.tobytes()
    monkeypatch.setattr("index.codebook.kmeans.BLOCK_ROWS", 300)
    blocked = spherical_kmeans(rows, 16, seed=5)
    assert similarity(rows, blocked) == pytest.approx(similarity(rows, whole), rel=1e-3)


def test_a_cluster_without_rows_takes_one_of_the_largest() -> None:
    """Copies start several centroids in one place, where only the first of them finds rows."""
    rows = np.repeat(clustered_units(100, seed=3), 10, axis=0)
    clusters = spherical_kmeans(rows, 60, seed=0)
    assert (clusters.sizes > 0).all()


def test_two_levels_give_every_list_and_nearly_the_quality_of_one() -> None:
    """Buckets share the centroids in proportion to their rows."""
    rows = clustered_units(4000, seed=5)
    two, again = (two_level_kmeans(rows, 64, seed=5) for _ in range(2))
    assert two.centroids.shape == (64, WIDE)
    assert two.sizes.sum() == 4000
    assert two.centroids.tobytes() == again.centroids.tobytes()
    assert similarity(rows, two) > 0.97 * similarity(rows, spherical_kmeans(rows, 64, seed=5))


@pytest.mark.parametrize("train", [spherical_kmeans, two_level_kmeans])
def test_as_many_clusters_as_rows_are_the_rows_and_more_are_refused(
    train: Callable[..., Clusters],
) -> None:
    """Each row is its own centroid."""
    rows = clustered_units(20, seed=6)
    assert similarity(rows, train(rows, 20, seed=0)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="20 rows cannot make 21"):
        train(rows, 21, seed=0)


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "IVF64_HNSW8,RaBitQ", "IVF16,PQ8x4np"])
@pytest.mark.parametrize("two_levels_from", [16, 1000])
def test_training_twice_gives_the_same_bytes(
    tmp_path: Path, factory: str, two_levels_from: int
) -> None:
    """Also with two threads, and a graph over the centroids."""
    rows = clustered_units(3000, seed=7)
    paths = [tmp_path / "a.faiss", tmp_path / "b.faiss"]
    for path in paths:
        train_codebook(
            factory,
            rows,
            path,
            rotation=Rotation.random(WIDE, seed=1),
            seed=3,
            num_threads=2,
            two_levels_from=two_levels_from,
        )
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF16,SQ8", "IVF16,SQfp16", "IVF16_HNSW8,Flat", "IVF16,PQ8x4fs"]
)
@pytest.mark.parametrize("block_rows", [65_536, 700])
def test_encoding_gives_the_bytes_faiss_gives_and_their_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, block_rows: int
) -> None:
    """However rows are cut into blocks; the checksums are those of the files."""
    monkeypatch.setattr(index.faiss_encode, "BLOCK_ROWS", block_rows)
    rows = clustered_units(2000, seed=8)
    rows.tofile(tmp_path / "emb.f16")
    trained, lists = encoded(tmp_path / "one", factory, rows, Rotation())
    records = encode_rows(trained, rows, lists, rotation=Rotation(), first_id=5, num_threads=2)
    raw = faiss.read_index(str(trained))
    if factory == "Flat":
        raw.add(rows.astype(np.float32))
    else:
        raw.add_with_ids(rows.astype(np.float32), np.arange(5, 2005))
    ours = faiss.read_index(str(lists))
    assert ours.ntotal == 2000
    assert (faiss.serialize_index(ours) == faiss.serialize_index(raw)).all()
    assert records.rows == file_record(tmp_path / "emb.f16")
    assert records.lists == file_record(lists)


def test_a_rotation_keeps_inner_products_and_can_be_undone() -> None:
    """It is orthogonal, and the same for the same seed."""
    rows = random_units(20)
    rotation = Rotation.random(16, seed=1)
    rotated = rotation.apply(rows)
    assert np.allclose(rotated @ rotated.T, rows @ rows.T, atol=1e-5)
    assert not np.allclose(rotated, rows, atol=0.1)
    assert np.allclose(rotation.undo(rotated), rows, atol=1e-5)
    assert (Rotation.random(16, seed=1).apply(rows) == rotated).all()


@pytest.mark.parametrize("dim", [16, 100, 512])
def test_a_row_is_rotated_alike_whatever_stands_beside_it(dim: int) -> None:
    """To the bit, in any number of rows and at any place; and as queries are, nearly."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(700, dim)).astype(np.float32)
    rotation = Rotation.random(dim, seed=1)
    rotated = rotation.apply_alike(rows)
    np.testing.assert_allclose(rotated, rotation.apply(rows), atol=1e-4)
    for size in (1, 2, 7, 255, 256, 257, 600):
        chosen = random.permutation(700)[:size]
        assert np.array_equal(rotation.apply_alike(rows[chosen]), rotated[chosen]), size
    assert Rotation().apply_alike(rows) is rows


def test_rotated_rabitq_finds_much_more_where_dimensions_are_ordered_by_variance(
    tmp_path: Path,
) -> None:
    """Recall at 10 of 50 re-scored candidates, over all lists."""
    rows, queries = decaying_units(4000, seed=10), decaying_units(50, seed=11)
    truth = np.argsort(-(queries.astype(np.float32) @ rows.astype(np.float32).T))[:, :10]
    recall = dict[str, float]()
    for name, rotation in (("without", Rotation()), ("with", Rotation.random(WIDE, seed=1))):
        _, lists = encoded(tmp_path / name, "IVF8,RaBitQ", rows, rotation)
        found = faiss.read_index(str(lists))
        found.nprobe = 8
        _, candidates = found.search(rotation.apply(queries.astype(np.float32)), 50)
        # The true ten are the best of any candidates that hold them.
        hits = [len(set(one) & set(true)) for one, true in zip(candidates, truth, strict=True)]
        recall[name] = float(np.mean(hits)) / 10
    assert recall["with"] > recall["without"] + 0.1
    assert recall["with"] > 0.8


@pytest.fixture
def rabitq(tmp_path: Path) -> tuple[Path, Path, NDArray[np.float32]]:
    """Photos, an index of them in two shards of RaBitQ, and their rows."""
    rows = random_units(60, seed=12)
    photos = write_vectors(tmp_path / "photos", rows)
    build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF4,RaBitQ", shard_rows=40)
    return photos, tmp_path / "index", rows


def test_rotated_codes_answer_with_true_cosines(
    rabitq: tuple[Path, Path, NDArray[np.float32]],
) -> None:
    """The store holds rows as they were, and they are what is scored."""
    _, out, rows = rabitq
    with closing(Searcher.open(out)) as searcher:
        for query in random_units(5, seed=13):
            (found,) = searcher.search(query[None], 60)
            expected = exact_neighbours(rows, query, 60)
            assert [one.id for one in found] == [row_id for row_id, _ in expected]
            assert [one.score for one in found] == pytest.approx([s for _, s in expected], abs=1e-6)


def test_queries_are_rotated_like_the_rows(tmp_path: Path) -> None:
    """A row finds itself among few candidates, which codes of another basis would not give."""
    rows = random_units(1500, seed=15)
    photos = write_vectors(tmp_path / "photos", rows)
    build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF4,RaBitQ")
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        found = searcher.search(rows[:40], 1)
    assert sum(one[0].id == number for number, one in enumerate(found)) >= 36


def test_the_manifest_holds_the_checksums_of_the_codebook(
    rabitq: tuple[Path, Path, NDArray[np.float32]],
) -> None:
    """Of every file; a generation that keeps the codebook keeps them."""
    photos, out, _ = rabitq
    manifest = json.loads((out / "manifests" / "000001.json").read_text())
    for part in manifest["codebook_files"]:
        assert part["size"] == (out / part["file"]).stat().st_size
        assert part["sha256"] == file_record(out / part["file"]).sha256
    names = [Path(part["file"]).name for part in manifest["codebook_files"]]
    assert names == ["rotation.f32", "train.json", "trained.faiss"]
    (photos / "more").write_bytes(random_units(1, seed=14).tobytes() + b"more")
    rotation = next(out.glob("codebooks/*/rotation.f32"))
    rotation.write_bytes(rotation.read_bytes()[:-1] + b"\0")
    build(photos, out, VectorEmbedder(), factory="IVF4,RaBitQ", shard_rows=40)
    later = json.loads((out / "manifests" / "000002.json").read_text())
    assert later["codebook_files"] == manifest["codebook_files"]


def test_a_cut_rotation_is_named_and_a_lost_one_is_made_again(
    rabitq: tuple[Path, Path, NDArray[np.float32]],
) -> None:
    """It comes back to the bit, as do the codes."""
    photos, out, _ = rabitq
    before = durable_state(out)
    rotation = next(out.glob("codebooks/*/rotation.f32"))
    rotation.write_bytes(rotation.read_bytes()[:-4])
    with pytest.raises(IndexFolderError, match=r"rotation\.f32: damaged"):
        Searcher.open(out)
    rotation.unlink()
    with pytest.raises(IndexFolderError, match=r"rotation\.f32: cannot be read"):
        Searcher.open(out)
    build(photos, out, VectorEmbedder(), factory="IVF4,RaBitQ", shard_rows=40)
    assert durable_state(out) == before
    Searcher.open(out).close()


def test_the_name_of_a_codebook_depends_on_its_rotation(
    rabitq: tuple[Path, Path, NDArray[np.float32]],
) -> None:
    """Codes of one rotation must never be read with another."""
    _, out, _ = rabitq
    folder = next(out.glob("codebooks/*"))
    assert file_record(folder / "trained.faiss").sha256[:12] != folder.name
