"""Photos added and deleted while an index is served, and folded in by builds."""

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from change_fixtures import EMBEDDER, Changing, changing, found_ids, hits, seed_of
from index_fixtures import build, durable_state, exact_neighbours, photo_bytes, write_photos
from stub_embedder import StubEmbedder

from index.changes.addition import add_photos
from index.changes.removal import remove_photos
from index.changes.writer import ChangeWriter, NewPhoto
from index.compact import main as compact_main
from index.errors import ChangesRefusedError, IndexFolderError, NotWriterError
from index.searcher import Searcher
from index.searching.where import parse_filters


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos 0 to 3, the first of them twice, and their index."""
    folder = tmp_path_factory.mktemp("changes")
    photos = write_photos(folder / "photos", range(4))
    (photos / "copy.png").write_bytes(photo_bytes(0))
    build(photos, folder / "index")
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of it for a test that changes it; no file counts as changed by the copying."""
    shutil.copytree(built, tmp_path / "copy")
    build(tmp_path / "copy" / "photos", tmp_path / "copy" / "index")
    return tmp_path / "copy"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy of the index alone, for a test that does not build."""
    return shutil.copytree(built / "index", tmp_path / "index")


@pytest.fixture
def serving(out: Path) -> Iterator[Changing]:
    with changing(out) as one:
        yield one


def test_an_added_photo_is_found_at_once_and_after_a_restart(out: Path) -> None:
    """With its exact cosine, its attributes and its bytes, as if it had been indexed."""
    with changing(out) as serving:
        assert serving.add(7, label="dog", size=3) == (4, True)
        first = hits(serving.searcher, 7)[0]
        assert serving.searcher.num_live == 5
    with closing(Searcher.open(out)) as searcher:
        assert hits(searcher, 7)[0] == first
        assert searcher.read_photo(4) == photo_bytes(7)
        path = searcher.photo_path(4)
        assert path is not None
        assert path.read_bytes() == photo_bytes(7)
    assert first.id == 4
    assert first.score == pytest.approx(1, abs=1e-3)
    assert first.metadata == {"label": "dog", "size": 3, "paths": [first.uri]}


def test_scores_are_merged_exactly(serving: Changing) -> None:
    """Whatever lies in the generation and whatever does not, in one order."""
    for seed in range(10, 20):
        serving.add(seed)
    seeds = [0, 1, 2, 3, *range(10, 20)]
    rows = EMBEDDER.embed_pixels([EMBEDDER.read(photo_bytes(seed)).pixels for seed in seeds])
    query = EMBEDDER.embed_pixels([EMBEDDER.read(photo_bytes(42)).pixels])
    for k in (1, 5, 14, 20):
        (found,) = serving.searcher.search(query, k)
        expected = exact_neighbours(rows, query[0], k)
        assert [one.id for one in found] == [number for number, _ in expected]
        assert [one.score for one in found] == pytest.approx([score for _, score in expected])


def test_the_same_row_under_two_ids_ties_by_id(serving: Changing) -> None:
    """An added photo that looks exactly like an indexed one stands behind it."""
    data, prepared = photo_bytes(2) + b"tail", EMBEDDER.read(photo_bytes(2))
    (row,) = EMBEDDER.embed_pixels([prepared.pixels])
    assert serving.writer.add(serving.searcher, NewPhoto(data, prepared, {}), row).id == 4
    first, second = hits(serving.searcher, 2)[:2]
    assert (first.id, second.id, first.score) == (2, 4, second.score)


def test_bytes_that_are_live_keep_their_id(serving: Changing) -> None:
    """Added twice, or indexed before: no second row."""
    assert serving.add(7) == serving.add(7)._replace(is_new=True)
    assert serving.add(0) == (0, False)
    assert serving.searcher.num_live == 5


def test_a_deleted_photo_is_gone_at_once_and_for_good(folder: Path) -> None:
    """Indexed or added; builds that see its bytes do not bring it back."""
    with changing(folder / "index") as serving:
        serving.add(7)
        assert serving.delete(0)
        assert serving.delete(4)
        assert not serving.delete(0)
        assert not serving.delete(4)
        assert not serving.delete(99)
        assert sorted(one.id for one in hits(serving.searcher, 0)) == [1, 2, 3]
        assert serving.searcher.read_photo(0) is None
        assert serving.searcher.photo_path(4) is None
    assert found_ids(folder / "index") == {1: 1, 2: 2, 3: 3}
    write_photos(folder / "photos", [7])
    (folder / "photos" / "again.png").write_bytes(photo_bytes(0))
    build(folder / "photos", folder / "index", verify_content=True)
    assert found_ids(folder / "index") == {1: 1, 2: 2, 3: 3}


def test_deleted_then_added_again_has_a_new_id(folder: Path) -> None:
    """The old one stays dead, before and after builds."""
    with changing(folder / "index") as serving:
        serving.delete(1)
        assert serving.add(1) == (4, True)
        serving.delete(4)
        assert serving.add(1) == (5, True)
    expected = {0: 0, 2: 2, 3: 3, 5: 1}
    assert found_ids(folder / "index") == expected
    for _ in range(2):
        build(folder / "photos", folder / "index")
        assert found_ids(folder / "index") == expected
    with closing(Searcher.open(folder / "index")) as searcher:
        entry = hits(searcher, 1)[0]
        assert entry.metadata["paths"][0] == "0001.png"
        assert len(entry.metadata["paths"]) == 2


def test_a_build_folds_adds_in_with_their_ids(folder: Path) -> None:
    """Beside new photos of the collection; the segments leave when no generation needs them."""
    out = folder / "index"
    with changing(out) as serving:
        serving.add(7, label="dog")
        serving.add(8)
        before = hits(serving.searcher, 7)[0]
        write_photos(folder / "photos", [20, 21])
        report = build(folder / "photos", out)
        # Who goes on with the old generation finds what was there.
        serving.searcher.refresh()
        assert serving.searcher.num_live == 6
    assert (report.num_new, report.num_live) == (2, 8)
    expected = {0: 0, 1: 1, 2: 2, 3: 3, 4: 7, 5: 8, 6: 20, 7: 21}
    assert found_ids(out) == expected
    with closing(Searcher.open(out)) as searcher:
        assert len(searcher.present.recent.ids) == 0
        assert hits(searcher, 7)[0] == before
    for seed in (30, 31):
        build(write_photos(folder / "photos", [seed]), out)
    assert found_ids(out) == expected | {8: 30, 9: 31}
    assert len(list((out / "adds").glob("*.f16"))) <= 3
    with changing(out) as serving:
        assert serving.add(32).id == 10


def test_a_folded_index_is_that_of_a_fresh_build(folder: Path) -> None:
    """Rows are those the same model gives; the folder can be moved with what was added to it."""
    with changing(folder / "index") as serving:
        serving.add(4)
    build(folder / "photos", folder / "index")
    moved = (folder / "index").rename(folder / "moved")
    assert found_ids(moved) == {number: number for number in range(5)}
    write_photos(folder / "photos", [4])
    build(folder / "photos", folder / "fresh")
    with (
        closing(Searcher.open(moved)) as searcher,
        closing(Searcher.open(folder / "fresh")) as fresh,
    ):
        scores = [[(one.id, one.score) for one in hits(one_of, 4)] for one_of in (searcher, fresh)]
    assert scores[0] == scores[1]


FILTERS = ["label=dog", "label!=cat", "attributes.size>=3", "width=16,format=PNG", "bytes<10"]


def test_a_filter_means_the_same_before_and_after_a_build(folder: Path) -> None:
    """Deleted photos meet none; a search finds only what is allowed."""
    with changing(folder / "index") as serving:
        serving.add(7, label="dog", size=3)
        serving.add(8, label="cat", size=2)
        serving.add(9, label="dog", size=5)
        serving.delete(6)
        serving.delete(3)
        texts = [(text, parse_filters([text])) for text in FILTERS]
        before = {text: serving.searcher.matching(one).tolist() for text, one in texts}
        allowed = serving.searcher.matching(parse_filters(["attributes.size>=2"]))
        query = np.ones((1, EMBEDDER.dim), np.float32)
        (found,) = serving.searcher.search(query, 9, allowed=allowed)
        assert sorted(one.id for one in found) == [4, 5]
    build(folder / "photos", folder / "index")
    with closing(Searcher.open(folder / "index")) as searcher:
        after = {text: searcher.matching(parse_filters([text])).tolist() for text in FILTERS}
    assert before == after
    assert before["label=dog"] == [4]
    assert before["width=16,format=PNG"] == [0, 1, 2, 4, 5]


def test_what_is_known_of_a_photo_is_the_same_before_and_after_a_build(folder: Path) -> None:
    """Its facts, its stored row, its place among the ids; a deleted one has none."""

    def known(searcher: Searcher) -> list[object]:
        pages = [searcher.scroll(after=one, limit=2) for one in (-1, 0, 3, 5, 9)]
        labelled = searcher.scroll(after=-1, limit=9, filters=parse_filters(["label=dog"]))
        rows = searcher.embeddings([6, 0, 4]).tolist()
        return [pages, labelled, rows, searcher.contents([6, 5, 4, 1, 0]), searcher.embedding(1)]

    with changing(folder / "index") as serving:
        serving.add(7, label="dog", size=3)
        serving.add(8, label="dog")
        serving.add(9)
        serving.delete(1)
        serving.delete(5)
        before = known(serving.searcher)
    build(folder / "photos", folder / "index")
    with closing(Searcher.open(folder / "index")) as searcher:
        assert known(searcher) == before
    assert before[:2] == [[[0, 2], [2, 3], [4, 6], [6], []], [4]]
    assert before[4] is None


def test_other_readers_see_changes_when_they_look(out: Path) -> None:
    """And whoever holds a state goes on with it whole."""
    with closing(Searcher.open(out)) as replica, changing(out) as serving:
        assert not replica.refresh()
        held = serving.searcher.present
        serving.add(7)
        serving.delete(2)
        assert (replica.num_live, held.num_live, serving.searcher.num_live) == (4, 4, 4)
        assert sorted(one.id for one in hits(replica, 0)) == [0, 1, 2, 3]
        assert held.entries([2, 4]).keys() == {2}
        assert replica.refresh()
        assert not replica.refresh()
        assert sorted(one.id for one in hits(replica, 0)) == [0, 1, 3, 4]


def test_searches_beside_changes_are_each_of_one_state(serving: Changing) -> None:
    """Adds in pairs with deletes: every answer holds four live photos or five, all with entries."""
    stop, seen, faults = threading.Event(), set[int](), list[Exception]()

    def search() -> None:
        try:
            while not stop.is_set():
                seen.add(len(hits(serving.searcher, 0)))
        except Exception as error:  # noqa: BLE001 - seen by the test
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(30, 45):
        serving.delete(serving.add(seed).id)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert seen <= {4, 5}


def test_there_is_one_writer_at_a_time(serving: Changing, out: Path) -> None:
    """Another is refused until it has ended."""
    with pytest.raises(NotWriterError, match="another process takes"):
        ChangeWriter(out)
    serving.writer.close()
    ChangeWriter(out).close()


def test_what_no_line_can_keep_is_refused(serving: Changing, out: Path) -> None:
    """A number that is none, half a surrogate pair, a row of another length: nothing is written."""
    before = sorted(path.name for path in out.rglob("*"))
    for metadata in ({"n": float("nan")}, {"text": "\ud800"}):
        with pytest.raises(IndexFolderError, match="not JSON that can be kept"):
            serving.add(7, **metadata)
    photo = NewPhoto(photo_bytes(7), EMBEDDER.read(photo_bytes(7)), {})
    for row in (np.ones(3, np.float32), np.zeros(16, np.float32), np.full(16, np.nan, np.float32)):
        with pytest.raises(IndexFolderError, match="no unit vector"):
            serving.writer.add(serving.searcher, photo, row)
    assert sorted(path.name for path in out.rglob("*")) == before
    assert serving.add(7).id == 4


def test_a_folder_from_before_opens_and_refuses_changes_until_it_is_built(folder: Path) -> None:
    """It has no adds/; searches are as ever."""
    out = folder / "index"
    shutil.rmtree(out / "adds")
    shutil.rmtree(out / "uploads")
    assert found_ids(out) == {number: number for number in range(4)}
    with pytest.raises(ChangesRefusedError, match="adds"):
        ChangeWriter(out)
    (out / "adds").mkdir()
    with changing(out) as serving, pytest.raises(ChangesRefusedError, match=r"run index\.build"):
        serving.add(7)
    build(folder / "photos", out)
    with changing(out) as serving:
        assert serving.add(7).id == 4


def cut(path: Path, num_bytes: int) -> None:
    os.truncate(path, path.stat().st_size - num_bytes)


@pytest.mark.parametrize(
    ("suffix", "num_bytes", "next_id"),
    [("jsonl", 1, 5), ("jsonl", 40, 5), ("f16", 1, 6), ("f16", 16, 6)],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_half_a_line_or_half_a_row_costs_only_itself(
    out: Path,
    suffix: str,
    num_bytes: int,
    next_id: int,
    is_open: bool,  # noqa: FBT001 - of the table
) -> None:
    """The rest is searched; the next add takes a line's place, but no id that a line promises."""
    with changing(out) as serving:
        serving.add(7)
        serving.delete(1)
        serving.add(8)
        segment = max((out / "adds").glob(f"*.{suffix}"))
        cut(segment, num_bytes)
        if is_open:  # what it has read it keeps; it never reads there again
            assert serving.searcher.num_live == 5
    assert found_ids(out) == {0: 0, 2: 2, 3: 3, 4: 7}
    with changing(out) as serving:
        assert serving.add(9).id == next_id
    assert found_ids(out) == {0: 0, 2: 2, 3: 3, 4: 7, next_id: 9}


class Killed(BaseException):
    """As a kill: nothing between here and the test may catch it."""


class KillAt:
    """Dies at the n-th durable action."""

    def __init__(self, step: int) -> None:
        self.actions, self._step = list[str](), step

    def __call__(self, action: str) -> None:
        """Count an action, or die."""
        self.actions.append(action)
        if len(self.actions) == self._step:
            raise Killed

    @property
    def has_killed(self) -> bool:
        """Whether it came to that."""
        return len(self.actions) >= self._step


def test_a_kill_between_any_two_steps_of_an_add_loses_at_most_that_add(
    out: Path, tmp_path: Path
) -> None:
    """Asked for again it is there once, under one id."""
    for step in range(1, 20):
        copy = shutil.copytree(out, tmp_path / f"{step}")
        kill = KillAt(step)
        try:
            with changing(copy, steps=kill) as serving:
                serving.add(7)
        except Killed:
            pass
        assert found_ids(copy).items() >= {0: 0, 1: 1, 2: 2, 3: 3}.items()
        with changing(copy) as serving:
            assert serving.add(7).id == 4
            assert serving.add(8).id == 5
        assert found_ids(copy) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 7, 5: 8}
        if not kill.has_killed:
            assert step > 5
            return
    pytest.fail("the add has no end")


def test_a_kill_between_any_two_steps_of_folding_changes_nothing(
    folder: Path, tmp_path: Path
) -> None:
    """Run again, the build ends as one that was never killed: ids, rows, shards."""
    with changing(folder / "index") as serving:
        serving.add(7)
        serving.delete(0)
        serving.add(8)
        serving.delete(4)
        serving.add(0)
    write_photos(folder / "photos", [20, 21])
    whole = shutil.copytree(folder / "index", tmp_path / "whole")
    build(folder / "photos", whole)
    expected = {1: 1, 2: 2, 3: 3, 5: 8, 6: 0, 7: 20, 8: 21}
    assert found_ids(whole) == expected
    for step in range(1, 90):
        out = shutil.copytree(folder / "index", tmp_path / f"{step}")
        kill = KillAt(step)
        try:
            build(folder / "photos", out, steps=kill)
        except Killed:
            assert set(found_ids(out)) in ({1, 2, 3, 5, 6}, set(expected)), step
            build(folder / "photos", out)
        assert durable_state(out) == durable_state(whole), step
        shutil.rmtree(out)
        if "segment committed" in kill.actions:  # what follows is any build's
            return
    pytest.fail("the segment is never folded in")


def test_changes_at_any_step_of_a_build_are_kept(folder: Path, tmp_path: Path) -> None:
    """An add and a delete between any two steps: found by old and new readers, no id twice."""
    with changing(folder / "index") as serving:
        serving.add(7)
    write_photos(folder / "photos", [20, 21, 22])
    whole = shutil.copytree(folder / "index", tmp_path / "whole")
    build(folder / "photos", whole, steps=(seen := KillAt(0)))
    # Beginning a segment holds the lock that a change waits for.
    steps = [one for one in dict.fromkeys(seen.actions) if "jsonl" not in one]
    for step in steps[::3]:
        out = shutil.copytree(folder / "index", tmp_path / step.replace(" ", "-"))
        given = list[int]()

        def change(
            action: str, step: str = step, out: Path = out, given: list[int] = given
        ) -> None:
            if action == step and not given:
                with changing(out) as serving:
                    given += [serving.add(30).id, serving.add(21).id]
                    assert serving.delete(1)
                    assert serving.delete(4)

        build(folder / "photos", out, steps=change)
        found = found_ids(out)
        assert sorted(found.values()) == [0, 2, 3, 20, 21, 22, 30], step
        assert [found[one] for one in given] == [30, 21], step
        build(folder / "photos", out)
        assert found_ids(out) == found, step
        with changing(out) as serving:
            assert serving.add(40).id > max(found)
        shutil.rmtree(out)


_SECOND_PROCESS = """
import sys; from pathlib import Path; from change_fixtures import changing
with changing(Path(sys.argv[1])) as serving:
    assert serving.delete(3)
    print(*[serving.add(seed).id for seed in (50, 51, 52)])
"""


def test_another_process_changes_an_index_that_is_built_and_compacted(folder: Path) -> None:
    """In the middle of embedding, and of merging shards."""
    out, printed = folder / "index", list[str]()
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{sys.path[0]}"}

    def change(action: str) -> None:
        if action == "rows synced" and not printed:
            command = [sys.executable, "-c", _SECOND_PROCESS, str(out)]
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            printed.extend(done.stdout.split())

    build(write_photos(folder / "photos", [20, 21]), out, steps=change)
    assert printed == ["6", "7", "8"]
    expected = {0: 0, 1: 1, 2: 2, 4: 20, 5: 21, 6: 50, 7: 51, 8: 52}
    assert found_ids(out) == expected
    for seed in range(60, 64):
        build(write_photos(folder / "photos", [seed]), out, shard_rows=100)
        expected[max(expected) + 1] = seed
        assert found_ids(out) == expected
    assert len(list((out / "shards").iterdir())) < 6


def test_add_and_remove_by_hand_go_with_changes_while_serving(folder: Path) -> None:
    """index.add folds in like any build; index.remove leaves the journal as it is."""
    out = folder / "index"
    extra = write_photos(folder / "extra", [70])
    with changing(out) as serving:
        serving.add(7)
        add_photos(out, [extra / "0070.png"], StubEmbedder())
        serving.add(8)
        remove_photos(out, ids=[1])
    assert found_ids(out) == {0: 0, 2: 2, 3: 3, 4: 7, 5: 70, 6: 8}
    with changing(out) as serving:
        assert serving.add(1).id == 7
    build(folder / "photos", out)
    assert found_ids(out) == {0: 0, 2: 2, 3: 3, 4: 7, 5: 70, 6: 8, 7: 1}


def test_rows_of_another_model_are_made_again_from_the_bytes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal put beside an index of another checkpoint; bytes that are gone cost their photo."""
    with changing(folder / "index") as serving:
        serving.add(7)
        serving.add(8)
        (lost,) = (folder / "index" / "uploads").glob(hits(serving.searcher, 8)[0].uri)
    other = StubEmbedder("e" * 64)
    (folder / "other").mkdir()
    build(folder / "photos", folder / "other" / "index", other)
    for name in ("adds", "uploads"):
        shutil.rmtree(folder / "other" / "index" / name)
        shutil.copytree(folder / "index" / name, folder / "other" / "index" / name)
    (folder / "other" / "index" / "uploads" / lost.name).unlink()
    with caplog.at_level(logging.WARNING):
        assert sorted(found_ids(folder / "other" / "index")) == [0, 1, 2, 3]
        build(folder / "photos", folder / "other" / "index", other)
    assert "rows of another model" in caplog.text
    assert f"{lost.name}: not there" in caplog.text
    assert found_ids(folder / "other" / "index") == {0: 0, 1: 1, 2: 2, 3: 3, 4: 7}


def test_any_sequence_of_changes_and_builds_is_what_was_asked_for(folder: Path) -> None:
    """Against a dictionary: live ids with their photos, and no id given twice."""
    rng, out = random.Random(5), folder / "index"  # noqa: S311 - repeatable
    expected, given, in_collection = found_ids(out), set(range(4)), {0, 1, 2, 3}
    buried = set[int]()
    for _ in range(6):
        with changing(out) as serving:
            for _ in range(8):
                seed = rng.randrange(12)
                if rng.random() < 0.6:
                    added = serving.add(seed)
                    assert added.is_new == (seed not in expected.values())
                    assert not added.is_new or added.id not in given
                    expected[added.id], buried = seed, buried - {seed}
                    given.add(added.id)
                elif expected:
                    gone = rng.choice(sorted(expected))
                    assert serving.delete(gone)
                    buried.add(expected.pop(gone))
            assert {
                one.id: seed_of(serving.searcher.read_photo(one.id))
                for one in hits(serving.searcher, 0)
            } == expected
        in_collection |= {rng.randrange(12) for _ in range(2)}
        build(write_photos(folder / "photos", sorted(in_collection)), out)
        found = found_ids(out)
        new = found.keys() - expected.keys()
        assert not new & given
        assert {found[one] for one in new} == in_collection - buried - set(expected.values())
        assert found.items() >= expected.items()
        expected, given = found, given | found.keys()


def test_live_bytes_added_again_have_one_path_more_and_the_attributes_given(
    folder: Path,
) -> None:
    """No second row; a filter means the same before a build and after it."""
    filters = ["label=dog", "label=cat", "attributes.size>=3", "label!=dog", "format=PNG"]

    def known(searcher: Searcher) -> list[list[Any]]:
        found = [searcher.matching(parse_filters([text])).tolist() for text in filters]
        pages = [searcher.scroll(after=0, limit=9, filters=parse_filters([one])) for one in filters]
        places = [one.metadata["paths"] for one in sorted(hits(searcher, 0))]
        return [found, pages, places, searcher.contents([0, 1, 4])]

    with changing(folder / "index") as serving:
        serving.add(7, label="cat", size=1)
        assert serving.add(0, label="dog", size=3) == (0, False)
        assert serving.add(7, label="dog") == (4, False)
        assert serving.add(2) == (2, False)
        size = max((folder / "index" / "adds").glob("*.jsonl")).stat().st_size
        for again in ({"label": "dog", "size": 3}, {}):  # says nothing new
            assert serving.add(0, **again) == (0, False)
        assert max((folder / "index" / "adds").glob("*.jsonl")).stat().st_size == size
        before = known(serving.searcher)
        with closing(Searcher.open(folder / "index")) as replica:
            assert known(replica) == before
    found, places = before[0], before[2]
    assert found == [[0, 4], [], [0], [], [0, 1, 2, 3, 4]]
    assert places[0][:2] == ["0000.png", "copy.png"]
    assert len(places[0]) == 3
    build(folder / "photos", folder / "index")
    with changing(folder / "index") as serving:
        assert known(serving.searcher) == before
        assert serving.add(7, label="cat", size=4) == (4, False)
        before = known(serving.searcher)
        assert before[0] == [[0], [4], [0, 4], [4], [0, 1, 2, 3, 4]]
    build(folder / "photos", folder / "index")
    with closing(Searcher.open(folder / "index")) as searcher:
        assert known(searcher) == before


def test_live_bytes_added_again_stay_when_their_file_vanishes(tmp_path: Path) -> None:
    """Under their id; deleted they are gone with it."""
    photos, out = write_photos(tmp_path / "photos", range(4)), tmp_path / "index"
    build(photos, out)
    with changing(out) as serving:
        serving.add(1)
        serving.add(3)
    for seed in (1, 2, 3):
        (photos / f"{seed:04d}.png").unlink()
    with closing(Searcher.open(out)) as searcher:
        assert searcher.read_photo(1) == photo_bytes(1)
        assert searcher.read_photo(2) is None
    build(photos, out, allow_vanished=True)
    assert found_ids(out) == {0: 0, 1: 1, 3: 3}
    with changing(out) as serving:
        serving.delete(3)
    build(photos, out)
    assert found_ids(out) == {0: 0, 1: 1}
    assert [path.read_bytes() for path in (out / "uploads").iterdir()] == [photo_bytes(1)]


_BUSY_WRITER = """
import sys; from pathlib import Path; from change_fixtures import changing
with changing(Path(sys.argv[1])) as serving:
    for seed in range(50, 70):
        added = serving.add(seed).id
        if seed % 4 == 0:
            assert serving.delete(added)
        print(added, flush=True)
"""


def test_compaction_beside_a_process_that_adds_and_deletes_loses_nothing(folder: Path) -> None:
    """However often it is run meanwhile; a reader opened in between finds what was there."""
    out = folder / "index"
    for seed in range(20, 24):
        build(write_photos(folder / "photos", [seed]), out, factory="IVF1,SQfp16")
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{sys.path[0]}"}
    command = [sys.executable, "-c", _BUSY_WRITER, str(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        given = [int(writer.stdout.readline())]
        assert compact_main(["--index", str(out), "--force"]) == 0
        assert len(list((out / "manifests").iterdir())) == 2
        with closing(Searcher.open(out)) as searcher:
            assert searcher.matching([]).tolist()[:9] == [*range(8), given[0]]
            assert compact_main(["--index", str(out), "--force"]) == 0
            given += map(int, writer.stdout.read().split())
            searcher.refresh()
            assert searcher.num_live == 8 + 15
    assert writer.returncode == 0
    assert given == list(range(8, 28))
    built = {0: 0, 1: 1, 2: 2, 3: 3, 4: 20, 5: 21, 6: 22, 7: 23}
    added = {one: one + 42 for one in given if (one + 42) % 4}
    assert found_ids(out) == built | added
    build(folder / "photos", out)
    assert found_ids(out) == built | added


def test_a_full_disk_refuses_the_change_and_nothing_else(out: Path) -> None:
    """At any step of an add and of a delete; with room again both are taken."""
    refused = list[str]()
    for step in range(1, 9):
        full = FullAt(step)
        with changing(out, steps=full) as serving:
            try:
                serving.delete(serving.add(7).id)
            except ChangesRefusedError as error:
                refused.append(str(error))
            full.is_full = False
            assert sorted(one.id for one in hits(serving.searcher, 0))[:4] == [0, 1, 2, 3]
            added = serving.add(7).id
            assert found_ids(out)[added] == 7
            assert serving.delete(added)
        assert sorted(found_ids(out)) == [0, 1, 2, 3]
    assert len(refused) == 7
    assert all("No space left on device; nothing was changed" in one for one in refused)


class FullAt:
    """Has no room at the n-th durable action, until there is."""

    def __init__(self, step: int) -> None:
        self.is_full, self._left = True, step

    def __call__(self, _action: str) -> None:
        """Count an action, or find the disk full."""
        self._left -= 1
        if self.is_full and self._left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
