"""Groups of near-duplicates: the components of every near pair, as JSON and as a page."""

import base64
import io
import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fixtures import build, photo_bytes, random_units, write_vectors
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from stub_embedder import VectorEmbedder

import index.grouping.near
from index.calibrate import calibrate
from index.duplicates import main as duplicates_main
from index.grouping.components import Components
from index.grouping.groups import Member, Method, find_groups
from index.grouping.near import compared_pairs
from index.grouping.page import MOST_GROUPS, MOST_PHOTOS, groups_page
from index.searcher import Searcher

NUM_ROWS = 90


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=80))
def test_components_are_those_of_scipy(num_members: int, edges: list[tuple[int, int]]) -> None:
    """However the pairs are cut into blocks."""
    pairs = np.array([pair for pair in edges if max(pair) < num_members], int).reshape(-1, 2)
    components = Components(num_members)
    for part in np.array_split(pairs, 3):
        components.join(part[:, 0], part[:, 1])
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(num_members, num_members))
    labels = connected_components(graph, directed=False)[1]
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    expected = sorted(one.tolist() for one in groups if len(one) > 1)
    assert [group.tolist() for group in components.groups()] == expected


def test_every_near_pair_is_found_once_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a whole matrix of cosines."""
    monkeypatch.setattr(index.grouping.near, "_BLOCK_ROWS", 7)
    rows = random_units(40)
    found = list(compared_pairs(np.arange(40), rows.__getitem__, 0.3))
    pairs = [pair for one in found for pair in zip(one.left, one.right, strict=True)]
    cosines = rows @ rows.T
    assert sorted(pairs) == [
        (left, right)
        for left in range(40)
        for right in range(left + 1, 40)
        if cosines[left, right] >= 0.3
    ]


def families() -> np.ndarray:
    """Three chains of near vectors, of 5, 3 and 2, among others far from all."""
    rng, rows = np.random.default_rng(2), random_units(NUM_ROWS, seed=11)
    for first, size in ((0, 5), (20, 3), (40, 2)):
        for row in range(first + 1, first + size):
            near = rows[row - 1] + rng.normal(scale=0.03, size=rows.shape[1])
            rows[row] = near / np.linalg.norm(near)
    return rows


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the families, and one photo that lies at two paths."""
    folder = tmp_path_factory.mktemp("duplicates")
    photos = write_vectors(folder / "photos", families())
    (photos / "copy & <b>").write_bytes((photos / "000060").read_bytes())
    build(photos, folder / "index", VectorEmbedder(), shard_rows=50)
    return folder / "index"


@pytest.mark.parametrize("method", [Method.EXACT, Method.LISTS])
def test_groups_are_the_families_by_either_method(indexed: Path, method: Method) -> None:
    """Largest first; equal bytes at two paths are a group; nothing else is."""
    with closing(Searcher.open(indexed)) as searcher:
        groups = find_groups(searcher, threshold=0.95, method=method)
    names = [sorted(Path(path).name for one in group for path in one.paths) for group in groups]
    assert names[0] == [f"{row:06d}" for row in range(5)]
    assert names[1] == ["000020", "000021", "000022"]
    assert sorted(names[2:]) == [["000040", "000041"], ["000060", "copy & <b>"]]
    assert groups[0][0].cosine == pytest.approx(1, abs=1e-3)


def test_the_command_writes_groups_as_json_and_as_a_page(
    indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page escapes what paths hold, and asks nobody for anything."""
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    flags = ["--index", str(indexed), "--threshold", "0.95"]
    assert duplicates_main([*flags, "--json", str(out), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("4 groups of 11 photos among 90, joined by cosines of at least 0.95")
    document = json.loads(out.read_text())
    assert (document["threshold"], [len(one) for one in document["groups"]]) == (0.95, [5, 3, 2, 1])
    assert {"id", "uri", "paths", "width", "height", "bytes", "cosine"} == set(
        document["groups"][0][0]
    )
    text = page.read_text()
    assert "copy &amp; &lt;b&gt;" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def member(number: int) -> Member:
    return Member(number, "a.png", ["/a.png"], 16, 16, 100, 1.0)


def test_the_page_shows_photos_and_says_what_it_leaves_out() -> None:
    """A thumbnail that opens, a place for one that is gone, and counts of the rest."""
    groups = [[member(i) for i in range(MOST_PHOTOS + 3)]] * (MOST_GROUPS + 2)
    photos = {0: photo_bytes(1, side=400), 1: b"no photo"}
    text = "".join(groups_page(groups, title="<&>", read_photo=photos.get))
    assert "<h1>&lt;&amp;&gt;</h1>" in text
    assert text.count("and 3 more photos") == MOST_GROUPS
    assert "and 2 more groups" in text
    found = re.findall(r"base64,([^\"]+)", text)
    assert len(found) == MOST_GROUPS
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as thumbnail:
        assert thumbnail.size == (160, 160)


def test_the_threshold_comes_from_the_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one it must be given; with one it is that of a probability."""
    photos = write_vectors(tmp_path / "photos", families())
    out = tmp_path / "index"
    build(photos, out, VectorEmbedder())
    assert duplicates_main(["--index", str(out)]) == 2
    assert "give --threshold" in capsys.readouterr().err
    part = calibrate(out, VectorEmbedder()).calibration
    assert part is not None
    assert duplicates_main(["--index", str(out), "--probability", "0.5"]) == 0
    assert f"at least {part.curve.cosine_of(0.5):.4f}" in capsys.readouterr().out
    assert duplicates_main(["--index", str(out), "--probability", "0.999999999"]) == 2
    assert "not even equal photos" in capsys.readouterr().err
    both = ["--threshold", "0.9", "--probability", "0.5"]
    assert duplicates_main(["--index", str(out), *both]) == 2
    assert "give one of them" in capsys.readouterr().err
