"""Compaction: few shards and mostly live lists, with the same answers."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, exact_neighbours, random_units, write_vectors
from stub_embedder import DIM, VectorEmbedder

from index.catalog_generations import ShardRecord
from index.changes.addition import add_photos
from index.changes.removal import remove_photos
from index.compact import main as compact_main
from index.encode import write_lists
from index.layout import Layout
from index.manifest import ShardPart
from index.merge import Filling, groups_to_rewrite
from index.rows import RowRange
from index.searcher import Searcher
from index.searching.neighbours import Neighbour
from index.verify import main as verify_main

FACTORY = "IVF4,SQ8"


def answers(out: Path, *, num_queries: int = 4) -> list[list[Neighbour]]:
    """Neighbours of some queries."""
    with closing(Searcher.open(out)) as searcher:
        return searcher.search(random_units(num_queries, seed=99), 60)


def shards(out: Path) -> list[ShardPart]:
    """The shards of the live generation."""
    with closing(Searcher.open(out)) as searcher:
        return searcher.manifest.shards


def vectors(photos: Path, numbers: range, rows: np.ndarray) -> Path:
    """Files of some of the rows, named by their number."""
    photos.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (photos / f"{number:06d}").write_bytes(rows[number].tobytes() + str(number).encode())
    return photos


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Four small shards of ten vectors."""
    rows = random_units(40, seed=1)
    for start in range(0, 40, 10):
        photos = vectors(tmp_path / "photos", range(start, start + 10), rows)
        build(photos, tmp_path / "index", VectorEmbedder(), factory=FACTORY)
    return tmp_path / "index"


@pytest.mark.parametrize("factory", ["Flat", FACTORY, "IVF4,PQ4x4fs"])
def test_a_fifth_small_shard_makes_one_of_all(tmp_path: Path, factory: str) -> None:
    """Codes that can be copied are those an encoding of the merged rows gives; ids stay."""
    rows = random_units(100, seed=1)
    for start in range(0, 100, 20):
        photos = vectors(tmp_path / "photos", range(start, start + 20), rows)
        before = shards(tmp_path / "index") if start else []
        build(photos, tmp_path / "index", VectorEmbedder(), factory=factory)
    assert len(before) == 4
    assert [(one.first_id, one.n) for one in shards(tmp_path / "index")] == [(0, 100)]
    found = answers(tmp_path / "index")
    for query, neighbours in zip(random_units(4, seed=99), found, strict=True):
        assert [one.id for one in neighbours] == [i for i, _ in exact_neighbours(rows, query, 60)]


@pytest.mark.parametrize("factory", ["IVF4,SQ8", "IVF4,RaBitQ", "IVF4_HNSW4,SQfp16", "IVF4,PQ4np"])
def test_copied_codes_are_those_of_an_encoding(tmp_path: Path, factory: str) -> None:
    """A merged shard without its dead has the bytes of one encoded from its live rows at once."""
    photos, out = write_vectors(tmp_path / "photos", random_units(300)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), factory=factory, shard_rows=100)
    for number in range(0, 300, 7):
        (photos / f"{number:06d}").unlink()
    build(photos, out, VectorEmbedder(), factory=factory, shard_rows=100)
    assert compact_main(["--index", str(out), "--force"]) == 0
    (part,), (codebook,) = shards(out), (out / "codebooks").iterdir()
    layout = Layout(out)
    rows = RowRange(0, 300, layout.embeddings(part.folder))
    target = tmp_path / "encoded.faiss"
    coded = np.arange(300) % 7 != 0
    write_lists(layout, rows, target, codebook=codebook.name, dim=DIM, coded=coded)
    assert layout.lists(part.folder).read_bytes() == target.read_bytes()


def test_four_small_shards_stay_unless_forced(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule is index.build's; --force makes one of them, with the same answers."""
    found = answers(out)
    assert compact_main(["--index", str(out)]) == 0
    assert "nothing changed: generation 000004 stays" in capsys.readouterr().out
    assert compact_main(["--index", str(out), "--force"]) == 0
    said = capsys.readouterr().out
    assert "replaced or dropped 4, now 1" in said
    assert "published generation 000005" in said
    assert answers(out) == found
    assert compact_main(["--index", str(out), "--force"]) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_dead_rows_leave_the_lists_and_stay_in_the_store(out: Path, tmp_path: Path) -> None:
    """Above a fifth of a shard; the rows' file is the same one."""
    before = {part.first_id: part for part in shards(out)}
    rows = Layout(out).embeddings(before[10].folder).stat().st_ino
    for number in (0, 1, 10, 11, 12):
        (tmp_path / "photos" / f"{number:06d}").unlink()
    build(tmp_path / "photos", out, VectorEmbedder(), factory=FACTORY)
    after = {part.first_id: part for part in shards(out)}
    assert after[0] == before[0]
    assert (after[10].n, after[10].codes) == (10, 7)
    assert Layout(out).embeddings(after[10].folder).stat().st_ino == rows
    assert not {0, 1, 10, 11, 12} & {one.id for one in answers(out)[0]}


def test_a_content_that_comes_back_is_found_again(out: Path, tmp_path: Path) -> None:
    """Its code had left the lists, its row had not: nothing is embedded and the id stays."""
    found = answers(out)
    gone = [tmp_path / "photos" / f"{number:06d}" for number in range(10, 15)]
    data = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    build(tmp_path / "photos", out, VectorEmbedder(), factory=FACTORY)
    assert shards(out)[1].codes == 5
    for path, one in zip(gone, data, strict=True):
        path.write_bytes(one)
    assert build(tmp_path / "photos", out, VectorEmbedder(), factory=FACTORY).num_new == 0
    assert shards(out)[1].codes is None
    assert answers(out) == found


def test_a_shard_without_a_live_row_goes_and_its_ids_stay_empty(out: Path, tmp_path: Path) -> None:
    """Also those of the last shard; bytes that come back get a new id."""
    photos = tmp_path / "photos"
    last = (photos / "000039").read_bytes()
    for number in range(30, 40):
        (photos / f"{number:06d}").unlink()
    build(photos, out, VectorEmbedder(), factory=FACTORY)
    assert [part.first_id for part in shards(out)] == [0, 10, 20]
    (out / "build.sqlite").unlink()
    (photos / "back").write_bytes(last)
    report = build(photos, out, VectorEmbedder(), factory=FACTORY)
    assert (report.num_new, report.num_rows) == (1, 31)
    assert shards(out)[-1].first_id == 40
    assert {one.id for one in answers(out)[0]} >= {40}


def test_removed_contents_stay_away_when_their_shard_goes(out: Path, tmp_path: Path) -> None:
    """Their files still stand there: no build embeds them, until one is added again."""
    photos = tmp_path / "photos"
    remove_photos(out, ids=range(10, 20))
    for _ in range(2):
        report = build(photos, out, VectorEmbedder(), factory=FACTORY)
        assert (report.num_live, report.num_new) == (30, 0)
    assert [part.first_id for part in shards(out)] == [0, 20, 30]
    assert add_photos(out, [photos / "000015"], VectorEmbedder()).num_live == 31
    build(photos, out, VectorEmbedder(), factory=FACTORY)
    assert {one.id for one in answers(out)[0]} == {*range(10), *range(20, 41)}
    assert verify_main(["--index", str(out), "--deep"]) == 0


def test_unused_ids_between_merged_shards_are_zero_rows(out: Path, tmp_path: Path) -> None:
    """A dropped shard's ids lie inside the merged one, dead and without a code."""
    photos = tmp_path / "photos"
    for number in range(10, 20):
        (photos / f"{number:06d}").unlink()
    build(photos, out, VectorEmbedder(), factory=FACTORY)
    found = answers(out)
    assert compact_main(["--index", str(out), "--force"]) == 0
    (part,) = shards(out)
    assert (part.first_id, part.n, part.codes) == (0, 40, 30)
    stored = np.fromfile(Layout(out).embeddings(part.folder), "<f2").reshape(-1, DIM)
    assert not stored[10:20].any()
    assert answers(out) == found


def filling(first_id: int, n: int, *, num_dead: int = 0) -> Filling:
    """A shard whose first rows are dead."""
    record = ShardRecord(f"{first_id}", first_id, n, "codebook")
    return Filling(record, np.ones(n, bool), np.arange(n) >= num_dead)


@pytest.mark.parametrize(
    ("shards", "groups"),
    [
        ([(0, 5), (5, 5), (10, 5), (15, 5)], []),
        ([(0, 5), (5, 5), (10, 5), (15, 5), (20, 5)], [[0, 5, 10, 15, 20]]),
        # No more ids than a shard holds.
        ([(n, 50) for n in range(0, 250, 50)], [[0, 50], [100, 150]]),
        # A large one is no neighbour, and neither is one behind a wide gap.
        ([(0, 5), (5, 60), (65, 5), (70, 5), (75, 5), (500, 5)], [[65, 70, 75]]),
    ],
)
def test_neighbours_are_merged_by_the_rule(
    shards: list[tuple[int, int]], groups: list[list[int]]
) -> None:
    """At most four small shards stay; of 100 rows a shard, one of 50 is small."""
    chosen = groups_to_rewrite(
        [filling(*one) for one in shards], shard_rows=100, has_ids=True, force=False
    )
    assert [[one.record.first_id for one in group] for group in chosen] == groups


@pytest.mark.parametrize(
    ("num_dead", "options", "groups"),
    [
        (20, {"has_ids": True, "force": False}, 0),
        (21, {"has_ids": True, "force": False}, 1),
        (21, {"has_ids": False, "force": False}, 0),
        (1, {"has_ids": True, "force": True}, 1),
        (0, {"has_ids": True, "force": True}, 0),
    ],
)
def test_lists_are_cleaned_above_a_fifth_of_dead_codes(
    num_dead: int, options: dict[str, bool], groups: int
) -> None:
    """Lists without ids cannot be; a fifth is still allowed."""
    one = filling(0, 100, num_dead=num_dead)
    assert len(groups_to_rewrite([one], shard_rows=100, **options)) == groups


def test_twenty_rounds_of_changes_never_find_a_dead_id(tmp_path: Path) -> None:
    """Answers are those of an exact search, and shards stay few."""
    random, rows = np.random.default_rng(5), random_units(400, seed=6)
    photos = write_vectors(tmp_path / "photos", rows[:60])
    queries = random_units(3, seed=7)
    for number in range(20):
        build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF4,SQfp16", shard_rows=60)
        with closing(Searcher.open(tmp_path / "index")) as searcher:
            live = {int(path.name) for path in photos.iterdir()}
            for query in queries:
                expected = [i for i, _ in exact_neighbours(rows, query, 400) if i in live]
                (found,) = searcher.search(query[None], 10, nprobe=4)
                assert [int(one.uri) for one in found] == expected[:10], number
            spans = [(part.first_id, part.n) for part in searcher.manifest.shards]
            assert len(spans) <= 8, spans
        for one in random.choice(sorted(live), 12, replace=False):
            (photos / f"{one:06d}").unlink()
        vectors(photos, range(60 + 15 * number, 75 + 15 * number), rows)
