"""Test sets read from the layouts that people have, or publish."""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluation_fixtures import write_rows

from multigrain import rank_metrics
from multigrain.errors import MultiGrainError
from trainer.engine.processes import alone
from trainer.evaluation.compared import compared_rows
from trainer.evaluation.scores import score_test_set
from trainer.protocols import by_name
from trainer.protocols.plain_pickle import read_plain_pickle
from trainer.protocols.registry import PROTOCOLS
from trainer.protocols.test_set import PairSet, ProtocolError, QuerySet, Request


def read(protocol: str, data: Path, upright: Path | None = None) -> QuerySet:
    found = PROTOCOLS[protocol](Request(data, upright))
    assert isinstance(found, QuerySet)
    return found


def answers(found: QuerySet, which: str = "", *, junk: bool = False) -> dict[str, list[str]]:
    """For each query's file name the names of its right answers, or of its junk."""
    names = [picture.path.name for picture in found.pictures]
    truth = found.truths[which]
    rows = truth.junk if junk else truth.relevant
    return {
        names[query]: [names[found.gallery[row]] for row in own]
        for query, own in zip(found.queries, rows, strict=True)
    }


def scored(found: QuerySet, which: str = "") -> dict[str, list[str]]:
    """The right answers that are not junk."""
    junk = answers(found, which, junk=True)
    return {
        query: [name for name in own if name not in junk[query]]
        for query, own in answers(found, which).items()
    }


def touch(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_manifest_has_queries_gallery_distractors_and_junk(tmp_path: Path) -> None:
    """A query names its junk, a gallery row may be nobody's answer, and a CSV says the same."""
    (tmp_path / "list.csv").write_text(
        "path,instance,role,junk\n"
        "q.jpg,a,query,g1.jpg;d.jpg\n"
        "r.jpg,b,query,\n"
        "g1.jpg,a,gallery,\n"
        "g2.jpg,a,gallery,\n"
        "./r.jpg,b,gallery,\n"
        "h.jpg,b,,true\n"
        "i.jpg,a,instance,\n"
        "d.jpg,,distractor,\n"
    )
    found = read("manifest", tmp_path / "list.csv")
    assert scored(found) == {
        "q.jpg": ["g2.jpg", "i.jpg"],
        "r.jpg": [],
        "i.jpg": ["g1.jpg", "g2.jpg"],
    }
    assert answers(found, junk=True) == {
        "q.jpg": ["g1.jpg", "d.jpg"],
        "r.jpg": ["r.jpg", "h.jpg"],
        "i.jpg": ["i.jpg"],
    }
    rows = [
        {"path": "q.jpg", "instance": 7, "role": "query", "junk": ["g.jpg"]},
        {"path": "g.jpg", "instance": 7},
        {"path": "h.jpg", "instance": "7"},
    ]
    found = read("manifest", write_rows(tmp_path / "list.jsonl", rows))
    assert scored(found) == {"q.jpg": ["h.jpg"]}


def test_a_manifest_without_queries_asks_for_every_instance(tmp_path: Path) -> None:
    """Each photo against all others, distractors among them."""
    rows = [{"path": name, "instance": name[0]} for name in ("a1", "a2", "b1")] + [{"path": "x"}]
    found = read("manifest", write_rows(tmp_path / "list.jsonl", rows))
    assert scored(found) == {"a1": ["a2"], "a2": ["a1"], "b1": []}
    assert len(found.gallery) == 4


def test_a_list_that_is_none_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    """With the columns it should have."""
    for data, message in ((tmp_path / "none.csv", "is not there"), (tmp_path, "is not a list")):
        with pytest.raises(ProtocolError, match=rf"{message}: give a \.csv .* path, instance"):
            read("manifest", data)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"role": "probe"}, "row 1: role 'probe': write query"),
        ({"role": "query"}, "row 1: a query without an instance"),
        ({"role": "distractor", "instance": "a"}, "row 1: a distractor has no instance"),
        ({"role": "query", "instance": "a", "junk": "z.jpg"}, "'z.jpg' is no gallery row"),
        ({}, "0 queries, 2 gallery rows"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    row: dict[str, str], message: str, tmp_path: Path
) -> None:
    """With the row and what is allowed."""
    path = write_rows(tmp_path / "list.jsonl", [{"path": "a.jpg"} | row, {"path": "b.jpg"}])
    with pytest.raises(ProtocolError, match=message):
        read("manifest", path)


def test_groups_come_from_a_column_or_from_folders(tmp_path: Path) -> None:
    """Every photo of a group against all others; photos of none are distractors."""
    rows = [{"path": "a", "group": "1"}, {"path": "b", "group": "1"}, {"path": "c", "group": ""}]
    found = read("groups", write_rows(tmp_path / "list.jsonl", rows))
    assert scored(found) == {"a": ["b"], "b": ["a"], "c": []}
    touch(tmp_path, ["photos/x/1.jpg", "photos/x/2.jpg", "photos/y/3.jpg", "photos/4.jpg"])
    found = read("groups", tmp_path / "photos")
    assert scored(found) == {"1.jpg": ["2.jpg"], "2.jpg": ["1.jpg"], "3.jpg": [], "4.jpg": []}
    with pytest.raises(ProtocolError, match="column `group`"):
        read("groups", write_rows(tmp_path / "none.jsonl", [{"path": "a"}]))


def test_verification_pairs_name_each_photo_once(tmp_path: Path) -> None:
    """Pairs are kept in order; both answers must occur."""
    rows = [
        {"path": "a", "other": "b", "same": 1},
        {"path": "b", "other": "c", "same": "false"},
    ]
    found = PROTOCOLS["verification"](Request(write_rows(tmp_path / "pairs.jsonl", rows)))
    assert isinstance(found, PairSet)
    assert [picture.path.name for picture in found.pictures] == ["a", "b", "c"]
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [1, 2])
    np.testing.assert_array_equal(found.same, [True, False])
    with pytest.raises(ProtocolError, match="both kinds"):
        PROTOCOLS["verification"](Request(write_rows(tmp_path / "one.jsonl", rows[:1])))
    with pytest.raises(ProtocolError, match="no `same` of 0 or 1"):
        PROTOCOLS["verification"](
            Request(write_rows(tmp_path / "no.jsonl", [{"path": "a", "other": "b"}]))
        )


def holidays(folder: Path) -> None:
    touch(folder / "jpg", ["100000.jpg", "100001.jpg", "100002.jpg", "100100.jpg", "100101.jpg"])


def ukbench(folder: Path) -> None:
    touch(folder / "full", [f"ukbench{number:05d}.jpg" for number in range(8)])


def copydays(folder: Path) -> None:
    touch(folder / "original", ["200000.jpg", "200100.jpg"])
    touch(folder / "strong", ["200001.jpg", "200002.jpg", "200101.jpg"])
    touch(folder / "distractors" / "a", ["x.jpg"])


def rparis6k(folder: Path) -> None:
    names = [f"paris{number}" for number in range(4)]
    truth = {"bbx": [0, 0, 5, 5], "easy": [2], "hard": [3], "junk": [0]}
    document = {"imlist": names, "qimlist": ["paris1"], "gnd": [truth]}
    touch(folder / "jpg", [f"{name}.jpg" for name in names])
    (folder / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(document, protocol=4))


def roxford5k(folder: Path) -> None:
    names = [f"row{number}" for number in range(5)]
    truth = {"bbx": [1.5, 2, 30, 40.25], "easy": np.array([0]), "hard": [1, 2], "junk": [3]}
    nothing = {"bbx": np.arange(4), "easy": [], "hard": [], "junk": np.array([], int)}
    document = {"imlist": names, "qimlist": ["asked", "row4"], "gnd": [truth, nothing]}
    touch(folder / "jpg", [f"{name}.jpg" for name in [*names, "asked"]])
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(document, protocol=2))


def gldv2(folder: Path) -> None:
    (folder / "metadata").mkdir()
    (folder / "metadata" / "index.csv").write_text("id\naaa1\nbbb2\n")
    (folder / "metadata" / "retrieval_solution_v2.1.csv").write_text(
        "id,images,Usage\nccc3,bbb2 aaa1,Private\nddd4,aaa1,Public\neee5,None,Ignored\n"
    )
    touch(folder / "index", ["a/a/a/aaa1.jpg", "b/b/b/bbb2.jpg"])
    touch(folder / "test", ["c/c/c/ccc3.jpg", "d/d/d/ddd4.jpg"])


def cub(folder: Path) -> None:
    touch(folder / "images", ["100.Old/a.jpg", "101.New/b.jpg", "101.New/c.jpg", "200.Last/d.jpg"])
    (folder / "images.txt").write_text(
        "1 100.Old/a.jpg\n2 101.New/b.jpg\n3 101.New/c.jpg\n4 200.Last/d.jpg\n"
    )
    (folder / "image_class_labels.txt").write_text("1 100\n2 101\n3 101\n4 200\n")


def cars(folder: Path) -> None:
    scipy = pytest.importorskip("scipy.io", reason="scipy comes with scikit-learn's dev extra")
    touch(folder / "car_ims", ["000001.jpg", "000002.jpg", "000003.jpg"])
    kinds = [("relative_im_path", object), ("class", int), ("test", int)]
    rows = [("car_ims/000001.jpg", 98, 0), ("car_ims/000002.jpg", 99, 0)]
    rows.append(("car_ims/000003.jpg", 99, 1))
    scipy.savemat(folder / "cars_annos.mat", {"annotations": np.array(rows, dtype=kinds)})


def sop(folder: Path) -> None:
    (folder / "Ebay_test.txt").write_text(
        "image_id class_id super_class_id path\n1 11319 1 bicycle_final/1_0.JPG\n"
        "2 11319 1 bicycle_final/1_1.JPG\n"
    )
    touch(folder / "bicycle_final", ["1_0.JPG", "1_1.JPG"])


def in_shop(folder: Path) -> None:
    (folder / "Eval").mkdir()
    (folder / "Eval" / "list_eval_partition.txt").write_text(
        "3\nimage_name item_id evaluation_status\nimg/W/1.jpg id_1 train\n"
        "img/W/2.jpg id_2 query\nimg/W/3.jpg   id_2 gallery\n"
    )
    touch(folder / "img" / "W", ["2.jpg", "3.jpg"])


def disc21(folder: Path) -> None:
    (folder / "dev_ground_truth.csv").write_text("query_id,reference_id\nQ0,R1\nQ1,\n")
    touch(folder / "dev_queries", ["Q0.jpg", "Q1.jpg", "Q2.jpg"])
    touch(folder / "references", ["R0.jpg", "R1.jpg"])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "holidays": holidays,
    "ukbench": ukbench,
    "copydays": copydays,
    "roxford5k": roxford5k,
    "rparis6k": rparis6k,
    "gldv2": gldv2,
    "cub": cub,
    "cars": cars,
    "sop": sop,
    "in-shop": in_shop,
    "disc21": disc21,
}
# A file of each layout, and how it is missed.
NEEDED = {
    "holidays": ("jpg/100100.jpg", "missing 100100.jpg"),
    "ukbench": ("full/ukbench00006.jpg", "missing ukbench00006.jpg"),
    "copydays": ("original/200100.jpg", "holds 1 photos, Copydays has 2"),
    "roxford5k": ("jpg/row2.jpg", "missing jpg/row2.jpg"),
    "rparis6k": ("gnd_rparis6k.pkl", "is not rparis6k: missing gnd_rparis6k.pkl"),
    "gldv2": ("test/d/d/d/ddd4.jpg", "missing test/d/d/d/ddd4.jpg"),
    "cub": ("images/101.New/c.jpg", "missing images/101.New/c.jpg"),
    "cars": ("car_ims/000003.jpg", "missing car_ims/000003.jpg"),
    "sop": ("Ebay_test.txt", "missing Ebay_test.txt"),
    "in-shop": ("img/W/3.jpg", "missing img/W/3.jpg"),
    "disc21": ("references/R1.jpg", "missing R1.jpg"),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test sets of a few photos."""
    for name, number in (
        ("HOLIDAYS_SCENES", 2),
        ("HOLIDAYS_PHOTOS", 5),
        ("UKBENCH_PHOTOS", 8),
        ("COPYDAYS_ORIGINALS", 2),
        ("COPYDAYS_STRONG", 3),
    ):
        monkeypatch.setattr(by_name, name, number)


@pytest.mark.parametrize(
    ("protocol", "which", "expected"),
    [
        (
            "holidays",
            "",
            {"100000.jpg": ["100001.jpg", "100002.jpg"], "100100.jpg": ["100101.jpg"]},
        ),
        (
            "copydays",
            "",
            {
                "200001.jpg": ["200000.jpg"],
                "200002.jpg": ["200000.jpg"],
                "200101.jpg": ["200100.jpg"],
            },
        ),
        ("roxford5k", "easy", {"asked.jpg": ["row0.jpg"], "row4.jpg": []}),
        (
            "roxford5k",
            "medium",
            {"asked.jpg": ["row0.jpg", "row1.jpg", "row2.jpg"], "row4.jpg": []},
        ),
        ("roxford5k", "hard", {"asked.jpg": ["row1.jpg", "row2.jpg"], "row4.jpg": []}),
        ("rparis6k", "easy", {"paris1.jpg": ["paris2.jpg"]}),
        ("rparis6k", "medium", {"paris1.jpg": ["paris2.jpg", "paris3.jpg"]}),
        ("rparis6k", "hard", {"paris1.jpg": ["paris3.jpg"]}),
        ("gldv2", "private", {"ccc3.jpg": ["bbb2.jpg", "aaa1.jpg"], "ddd4.jpg": []}),
        ("gldv2", "public", {"ccc3.jpg": [], "ddd4.jpg": ["aaa1.jpg"]}),
        ("cub", "", {"b.jpg": ["c.jpg"], "c.jpg": ["b.jpg"], "d.jpg": []}),
        ("cars", "", {"000002.jpg": ["000003.jpg"], "000003.jpg": ["000002.jpg"]}),
        ("sop", "", {"1_0.JPG": ["1_1.JPG"], "1_1.JPG": ["1_0.JPG"]}),
        ("in-shop", "", {"2.jpg": ["3.jpg"]}),
        ("disc21", "", {"Q0.jpg": ["R1.jpg"], "Q1.jpg": []}),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_published_layout_gives_queries_and_answers(
    protocol: str, which: str, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    """Junk left out; every picture is a file that is there, every metric has a name."""
    LAYOUTS[protocol](tmp_path)
    found = read(protocol, tmp_path)
    assert scored(found, which) == expected
    assert all(picture.path.is_file() for picture in found.pictures)
    assert all(callable(rank_metrics.metric(name)) for name in found.metrics)


@pytest.mark.parametrize("protocol", LAYOUTS)
@pytest.mark.usefixtures("small")
def test_a_missing_file_is_named(protocol: str, tmp_path: Path) -> None:
    """Before anything is embedded; and a folder without anything is refused too."""
    with pytest.raises(ProtocolError, match=r"missing|not a folder"):
        read(protocol, tmp_path)
    LAYOUTS[protocol](tmp_path)
    needed, message = NEEDED[protocol]
    (tmp_path / needed).unlink()
    with pytest.raises(ProtocolError, match=message):
        read(protocol, tmp_path)


@pytest.mark.usefixtures("small")
def test_ukbench_counts_the_query_itself(tmp_path: Path) -> None:
    """Four answers a query, none of them junk."""
    ukbench(tmp_path)
    found = read("ukbench", tmp_path)
    assert found.truths[""].num_positives() == [4] * 8
    own = [f"ukbench{number:05d}.jpg" for number in range(4)]
    assert answers(found)["ukbench00002.jpg"] == own


@pytest.mark.usefixtures("small")
def test_holidays_are_turned_by_the_table_that_is_given(tmp_path: Path) -> None:
    """And the result says which; a table that cannot be read is refused with its row."""
    holidays(tmp_path)
    assert read("holidays", tmp_path).options == {"upright": "EXIF", "turned": 0}
    table = tmp_path / "upright.csv"
    table.write_text("name,turns\n100001.jpg,3\n")
    found = read("holidays", tmp_path, table)
    assert found.options == {"upright": "EXIF, then upright.csv", "turned": 1}
    assert [picture.turns for picture in found.pictures] == [0, 3, 0, 0, 0]
    table.write_text("100001.jpg,90\n")
    with pytest.raises(ProtocolError, match="row 1: write `name,turns`"):
        read("holidays", tmp_path, table)


def test_revisited_queries_are_cut_to_their_box(tmp_path: Path) -> None:
    """The same photo in the gallery is whole."""
    roxford5k(tmp_path)
    pictures = read("roxford5k", tmp_path).pictures
    assert pictures[0].box == (1.5, 2, 30, 40.25)
    assert [picture.box for picture in pictures[2:]] == [None] * 5


def test_revisited_paris_is_scored_by_its_three_difficulties(tmp_path: Path) -> None:
    """What one difficulty asks for is junk in another; the query's own photo is a wrong answer."""
    rparis6k(tmp_path)
    found = read("rparis6k", tmp_path)
    # To the query: junk, its own photo, hard, easy.
    vectors = np.array([[10, 0], [9, 1], [8, 2], [6, 4], [7, 3]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = compared_rows(found, vectors, alone())
    scores = {
        name: score.value
        for name, score in score_test_set(found, rows, alone(), seed=0).metrics.items()
    }
    assert scores["easy.ap_trapezoid"] == pytest.approx(0.25)  # behind one wrong answer
    assert scores["hard.ap_trapezoid"] == pytest.approx(0.25)
    assert scores["medium.ap_trapezoid"] == pytest.approx((0 + 1 / 2 + 1 / 2 + 2 / 3) / 4)
    assert scores["medium.precision_at_5"] == pytest.approx(2 / 3)
    assert scores["easy.precision_at_10"] == pytest.approx(1 / 2)
    assert scores["medium.precision_at_1"] == 0


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:  # noqa: D105 - pickle's
        return os.system, (self._command,)


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    """Before it runs; and arrays and texts of old and new numpy are read."""
    path, trace = tmp_path / "gnd.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"gnd": [Runs(f"touch {trace}")]}))
    with pytest.raises(ProtocolError, match="system"):
        read_plain_pickle(path)
    assert not trace.exists()
    path.write_bytes(b"\x80\x02no pickle")
    with pytest.raises(MultiGrainError, match="not a pickle of plain values"):
        read_plain_pickle(path)
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps({"a": np.arange(3), "b": np.float64(2)}, protocol=protocol))
        found = read_plain_pickle(path)
        assert (found["a"].tolist(), found["b"]) == ([0, 1, 2], 2)
