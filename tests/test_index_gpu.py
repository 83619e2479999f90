"""faiss on a GPU that is only pretended: what is done there, and what the CPU does instead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from gpu_fixtures import FakeGpuFaiss
from index_fixtures import build, random_units, write_vectors
from stub_embedder import VectorEmbedder

from index.codebook.rotation import Rotation
from index.faiss_encode import encode_rows
from index.faiss_gpu import FaissDevice
from index.faiss_train import train_codebook
from index.searcher import Searcher

NUM_ROWS = 700


def lists_of(folder: Path, factory: str, device: FaissDevice | None) -> bytes:
    """Train on rows, encode them, and give the file of lists."""
    folder.mkdir()
    rows = random_units(NUM_ROWS).astype(np.float16)
    options = {"rotation": Rotation(), "num_threads": 1, "faiss_device": device}
    train_codebook(factory, rows, folder / "trained.faiss", seed=3, **options)
    encode_rows(folder / "trained.faiss", rows, folder / "ivf.faiss", first_id=0, **options)
    return (folder / "ivf.faiss").read_bytes()


def test_codes_are_trained_and_made_on_the_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is written is an index of the CPU, with the same centroids and rows."""
    module = FakeGpuFaiss()
    device = FaissDevice("cuda", module=module)
    found = lists_of(tmp_path / "gpu", "IVF8,SQ8", device)
    assert module.used == ["train", "add"]
    assert found == lists_of(tmp_path / "cpu", "IVF8,SQ8", None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("factory", "module", "said"),
    [
        ("IVF8,SQ8", faiss, "faiss-cpu is installed"),
        ("IVF8,SQ8", FakeGpuFaiss(num_gpus=0), "finds no GPU of number 0"),
        ("IVF8,RaBitQ", FakeGpuFaiss(refused=faiss.IndexIVFRaBitQ), "not implemented on GPU"),
    ],
)
def test_what_a_gpu_cannot_do_the_cpu_does_after_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factory: str, module: object, said: str
) -> None:
    """However often it is asked for; the files are those of the CPU."""
    device = FaissDevice("cuda", module=module)
    found = lists_of(tmp_path / "gpu", factory, device)
    assert found == lists_of(tmp_path / "cpu", factory, None)
    (record,) = caplog.records
    assert record.getMessage().startswith("faiss works on the CPU: ")
    assert said in record.getMessage()


def test_a_build_on_the_cpu_says_nothing_of_gpus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A device of cpu never asks faiss for another."""
    module = FakeGpuFaiss()
    lists_of(tmp_path / "cpu", "IVF8,SQ8", FaissDevice("cpu", module=module))
    assert not module.used
    assert not caplog.records


@pytest.fixture
def searcher(tmp_path: Path) -> Iterator[Searcher]:
    """Several shards, a fifth of whose rows are dead."""
    photos, out = write_vectors(tmp_path / "photos", random_units(NUM_ROWS)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), factory="IVF8,SQ8", shard_rows=250)
    for number in range(0, NUM_ROWS, 6):
        (photos / f"{number:06d}").unlink()
    build(photos, out, VectorEmbedder(), factory="IVF8,SQ8", shard_rows=250)
    with closing(Searcher.open(out)) as opened:
        yield opened


def answers(searcher: Searcher, k: int, **options: object) -> list[tuple[list[int], list[float]]]:
    """Ids and scores of 20 queries."""
    ranked = searcher.rank(random_units(20, seed=5), k, **options)  # type: ignore[arg-type]
    return [(one.ids.tolist(), one.scores.tolist()) for one in ranked]


def test_a_gpu_finds_what_the_cpu_finds(searcher: Searcher) -> None:
    """Without dead rows, with filters of many and few, with more neighbours than a GPU gives."""
    allowed = np.arange(1, NUM_ROWS, 2, dtype=np.int64)
    asked = [
        {"k": 10},
        {"k": 1, "nprobe": 1},
        {"k": 300},
        {"k": 5, "allowed": allowed},
        {"k": 3, "allowed": allowed[:4]},
        {"k": 4, "exact": True},
    ]
    expected = [answers(searcher, **one) for one in asked]  # type: ignore[arg-type]
    module = FakeGpuFaiss()
    searcher._ranker.search_on(FaissDevice("cuda", module=module))
    assert [answers(searcher, **one) for one in asked] == expected  # type: ignore[arg-type]
    assert module.used.count("search") > len(asked)


def test_callers_of_a_gpu_take_turns(searcher: Searcher) -> None:
    """Its copy is not safe for two at once."""
    expected = answers(searcher, 5)
    searcher._ranker.search_on(FaissDevice("cuda", module=FakeGpuFaiss()))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: answers(searcher, 5), range(16)))
    assert found == [expected] * 16


def test_more_than_a_gpu_gives_is_searched_on_the_cpu(tmp_path: Path) -> None:
    """2,048 candidates are the most; there is a line for what is missing, none for this."""
    photos = write_vectors(tmp_path / "photos", random_units(2200))
    build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF8,SQ8")
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        module = FakeGpuFaiss()
        searcher._ranker.search_on(FaissDevice("cuda", module=module))
        ((ids, _), *_) = answers(searcher, 2150, nprobe=8)
        assert len(ids) == 2150
        assert not module.used
