"""What a cosine means: fitted, published with the index, returned with every neighbour."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, durable_state, random_units, write_vectors
from stub_embedder import DIM, VectorEmbedder

from index.build_report import BuildReport
from index.calibrate import calibrate
from index.calibration.fit import fit_pairs
from index.calibration.pairs import Pairs, instance_pairs
from index.errors import IndexFolderError, NotCalibratedError
from index.layout import Layout
from index.searcher import Searcher
from index.stats import read_stats
from index.summary import summary
from index.upkeep.recovery import recover_index
from index.verify import main as verify_main
from multigrain.calibration import Calibration, CalibrationError

NUM_ROWS = 200


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 200 vectors."""
    folder = tmp_path_factory.mktemp("calibrate")
    photos = write_vectors(folder / "photos", random_units(NUM_ROWS))
    build(photos, folder / "index", VectorEmbedder())
    return folder / "index"


def said_of_calibration(report: BuildReport) -> str:
    """The line of a build's summary."""
    lines = summary(report, Layout(Path("index")), until="publish").splitlines()
    (line,) = (line for line in lines if line.startswith("calibration"))
    return line.removeprefix("calibration").strip()


def test_copies_calibrate_an_index_and_the_next_build_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new generation, of the same rows, whose neighbours carry a probability."""
    photos = write_vectors(tmp_path / "photos", random_units(NUM_ROWS))
    out = tmp_path / "index"
    assert "index.calibrate learns it" in said_of_calibration(build(photos, out, VectorEmbedder()))
    assert read_stats(out)["calibrated"] is None
    with closing(Searcher.open(out)) as searcher:
        assert searcher.search(random_units(1), 1)[0][0].same_probability is None
        with pytest.raises(NotCalibratedError, match=r"index\.calibrate"):
            searcher.require_calibration()
    before = durable_state(out)
    manifest = calibrate(out, VectorEmbedder())
    assert manifest.generation == "000002"
    part = manifest.calibration
    assert part is not None
    assert (part.source, part.num_same, part.num_other) == ("copies", NUM_ROWS, 9 * NUM_ROWS)
    assert part.error is not None
    assert part.error < 0.05
    now = durable_state(out)
    assert {name: now[name] for name in before if name in now and "shards" in name} == {
        name: data for name, data in before.items() if "shards" in name
    }
    fitted = {"source": "copies", "generation": "000002", "live": NUM_ROWS}
    assert read_stats(out)["calibrated"] == fitted
    again = build(photos, out, VectorEmbedder())
    assert said_of_calibration(again) == "of this generation, fitted to copies"
    write_vectors(tmp_path / "photos", random_units(NUM_ROWS + 1))
    assert said_of_calibration(build(photos, out, VectorEmbedder())) == (
        "kept from generation 000002, fitted to copies when 200 photos were live; 201 are now"
    )
    assert read_stats(out)["calibrated"] == fitted
    assert verify_main(["--index", str(out)]) == 0
    capsys.readouterr()
    with closing(Searcher.open(out)) as searcher:
        assert searcher.generation == "000003"
        assert searcher.require_calibration() == part.curve
        (neighbours,) = searcher.search(random_units(1), 20)
    probabilities = [one.same_probability or -1 for one in neighbours]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > 0.9
    assert 0 < probabilities[-1] < 0.1


def test_a_calibration_outlives_the_loss_of_every_database(tmp_path: Path) -> None:
    """It stands in the manifest, which a recovery reads and the next build goes on from."""
    photos = write_vectors(tmp_path / "photos", random_units(60))
    out = tmp_path / "index"
    build(photos, out, VectorEmbedder())
    part = calibrate(out, VectorEmbedder()).calibration
    assert part is not None
    for path in [*out.glob("build.sqlite*"), *(out / "catalogs").iterdir()]:
        path.unlink()
    report = recover_index(out, [photos], VectorEmbedder(), decode_threads=2)
    assert (report.num_found, report.from_catalog) == (60, False)
    write_vectors(tmp_path / "photos", random_units(61))
    assert build(photos, out, VectorEmbedder()).num_new == 1
    with closing(Searcher.open(out)) as searcher:
        assert (searcher.generation, searcher.num_live) == ("000003", 61)
        assert searcher.require_calibration() == part.curve


def test_the_same_pairs_again_publish_nothing(indexed: Path) -> None:
    """The live generation says it already."""
    first = calibrate(indexed, VectorEmbedder())
    assert calibrate(indexed, VectorEmbedder()).generation == first.generation


def labelled(folder: Path, *, num_instances: int = 12, seed: int = 3) -> Path:
    """Three near vectors of each instance and some distractors, as a CSV list."""
    rng = np.random.default_rng(seed)
    lines, rows = ["path,instance"], []
    for number, centre in enumerate(random_units(num_instances, seed=seed)):
        for _ in range(3):
            row = centre + rng.normal(scale=0.1, size=DIM)
            rows.append(row / np.linalg.norm(row))
            lines.append(f"list/{len(rows) - 1:06d},{number}")
    for row in random_units(10, seed=seed + 1):
        rows.append(row)
        lines.append(f"list/{len(rows) - 1:06d},")
    write_vectors(folder / "list", np.array(rows, np.float32))
    path = folder / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_labelled_photos_calibrate_by_the_hits_of_each(tmp_path: Path, indexed: Path) -> None:
    """Ten hits of 46 photos, of which two are of the same instance."""
    part = calibrate(indexed, VectorEmbedder(), labels=labelled(tmp_path)).calibration
    assert part is not None
    assert (part.source, part.num_same, part.num_other) == ("labels", 72, 460 - 72)
    assert part.curve.probabilities(np.array([0.3, 0.95])) == pytest.approx([0, 1], abs=0.1)


def test_labelled_pairs_calibrate_as_they_are(tmp_path: Path, indexed: Path) -> None:
    """Each verdict is one pair; a photo may be in several."""
    path = labelled(tmp_path)
    rows = [
        {"path": f"list/{3 * i:06d}", "other": f"list/{3 * i + 1:06d}", "same": True}
        for i in range(12)
    ] + [
        {"path": f"list/{3 * i:06d}", "other": f"list/{3 * i + 3:06d}", "same": "no"}
        for i in range(11)
    ]
    pairs = path.with_name("pairs.jsonl")
    pairs.write_text("\n".join(map(json.dumps, rows)))
    part = calibrate(indexed, VectorEmbedder(), labels=pairs).calibration
    assert part is not None
    assert (part.num_same, part.num_other) == (12, 11)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,label\na,b", IndexFolderError, "row 1: no column 'instance'"),
        ("path,other,same\na,b,maybe", IndexFolderError, "row 1: same is 'maybe'"),
        ("path,instance\na,b", IndexFolderError, "lists 1 photos"),
        ("path,instance\nlist/000000,b\nlist/000001,c", CalibrationError, "both kinds"),
    ],
)
def test_lists_that_teach_nothing_are_refused(
    tmp_path: Path, indexed: Path, text: str, error: type[Exception], message: str
) -> None:
    """The row and the column are named, and nothing is published."""
    path = labelled(tmp_path)
    path.write_text(text)
    before = (indexed / "CURRENT").read_bytes()
    with pytest.raises(error, match=message):
        calibrate(indexed, VectorEmbedder(), labels=path)
    assert (indexed / "CURRENT").read_bytes() == before


def test_the_error_is_that_of_pairs_not_fitted() -> None:
    """Labels drawn from a curve are told well, hits of two kinds of queries badly."""
    rng = np.random.default_rng(4)
    cosines = rng.uniform(0, 1, 4000).astype(np.float32)
    same = rng.random(4000) < Calibration(15, -9).probabilities(cosines)
    queries = np.repeat(np.arange(400), 10)
    fine = fit_pairs(Pairs(cosines, same, queries), source="labels")
    assert fine.error is not None
    assert fine.error < 0.03
    shifted = np.where(queries % 2 == 1, cosines / 2, cosines)
    bad = fit_pairs(Pairs(shifted, same, queries), source="labels")
    assert bad.error is not None
    assert bad.error > 0.1


def test_a_photo_of_no_instance_is_the_same_as_no_other() -> None:
    """Not even as another of none."""
    pairs = instance_pairs(random_units(5), ["", "", "a", "a", ""])
    assert pairs.same.sum() == 2
    assert len(pairs.cosines) == 20


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path, indexed: Path) -> None:
    """Labels are given by hand: one that is gone is a mistake."""
    path = tmp_path / "labels.csv"
    path.write_text("path,instance\ngone.jpg,a\nother.jpg,a")
    with pytest.raises(IndexFolderError, match=r"gone\.jpg: cannot be read"):
        calibrate(indexed, VectorEmbedder(), labels=path)
