"""Ready-made embeddings scored in a checkpoint's place, from any file that holds them."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_fixtures import draw_test_set, settings, write_rows
from index_fixtures import build
from numpy.typing import NDArray
from PIL import Image

from index.export_rows import export_index
from multigrain.embedder import Embedder
from multigrain.program import load_config
from trainer.engine.processes import alone
from trainer.evaluation.comparison import compare
from trainer.evaluation.embeddings import ReadyMade
from trainer.evaluation.feature_file import FeatureError
from trainer.evaluation.results import RESULTS, Result
from trainer.evaluation.run import evaluate
from trainer.protocols.test_set import Picture, ProtocolError
from trainer.settings_evaluate import EvaluateConfig

Rows = NDArray[np.float32]


class Made:
    """The test set, and what its photos were embedded as, three times as long."""

    def __init__(self, manifest: Path, checkpoint: Path) -> None:
        self.manifest, self.checkpoint = manifest, checkpoint
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        self.paths = [manifest.parent / row["path"] for row in rows]
        self.rows = 3 * Embedder.open(checkpoint, engine="torch", device="cpu").embed(self.paths)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[int], Image.Image],
    tiny_checkpoint: Path,
) -> Made:
    return Made(draw_test_set(tmp_path_factory.mktemp("set"), draw), tiny_checkpoint)


@pytest.fixture(scope="module")
def by_checkpoint(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("checkpoint")
    (found,) = evaluate(settings(made.checkpoint, made.manifest, out), alone())
    return found, out


def write_npy(path: Path, names: list[str], rows: Rows) -> Path:
    np.save(path, rows)
    write_rows(path.with_suffix(".jsonl"), [{"path": name} for name in names])
    return path


def write_parquet(path: Path, names: list[str], rows: Rows) -> Path:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"path": names, "embedding": rows.tolist()}), path)
    return path


def write_pickle(path: Path, names: list[str], rows: Rows) -> Path:
    path.write_bytes(pickle.dumps(dict(zip(names, rows, strict=True))))
    return path


WRITERS = {"f.npy": write_npy, "f.parquet": write_parquet, "f.pkl": write_pickle}


@pytest.mark.parametrize("name", WRITERS)
def test_ready_made_embeddings_score_as_the_model_that_made_them(
    name: str, made: Made, by_checkpoint: tuple[Result, Path], tmp_path: Path
) -> None:
    """Every metric, with its interval; relative names, in another order, of another length."""
    order = np.random.default_rng(0).permutation(len(made.rows))
    names = [made.paths[place].name for place in order]
    features = WRITERS[name](made.manifest.parent / name, names, made.rows[order])
    (found,) = evaluate(scored(features, made, tmp_path), alone())
    expected = by_checkpoint[0].scores.metrics
    assert found.scores.metrics.keys() == expected.keys()
    for metric, estimate in found.scores.metrics.items():
        assert estimate.value == pytest.approx(expected[metric].value, abs=1e-6)
        assert estimate.interval == pytest.approx(expected[metric].interval, abs=1e-6)
    assert all(row.verdict == "noise" for row in compare(by_checkpoint[1], tmp_path, seed=0))
    stated = json.loads((tmp_path / RESULTS).read_text())["model"]
    assert (stated["features"], stated["dim"]) == (str(features), made.rows.shape[1])


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_what_an_index_exports_is_scored(suffix: str, made: Made, tmp_path: Path) -> None:
    """With the absolute paths it writes, of photos of which one is there twice."""
    copy = made.manifest.parent / "copy.jpg"
    copy.write_bytes(made.paths[0].read_bytes())
    build(made.manifest.parent, tmp_path / "index")
    features = tmp_path / f"f{suffix}"
    export_index(tmp_path / "index", features)
    asked = write_rows(
        tmp_path / "list.jsonl",
        [{"path": str(path), "instance": "one"} for path in (copy, made.paths[1])],
    )
    (found,) = evaluate(scored(features, made, tmp_path / "out", data=[asked]), alone())
    assert found.scores.metrics["recall_at_1"].value == 1.0
    both = ReadyMade(features).of([Picture(copy), Picture(made.paths[0])])
    assert np.array_equal(both[0], both[1])


def scored(features: Path, made: Made, out: Path, **changes: Any) -> EvaluateConfig:
    values = {"features": features, "protocol": ["manifest"], "data": [made.manifest], "out": out}
    return EvaluateConfig(**(values | changes))


def test_photos_without_a_row_are_named(tmp_path: Path) -> None:
    """With where relative names were looked for."""
    features = write_npy(tmp_path / "f.npy", ["a.jpg"], np.ones((1, 4), np.float32))
    pictures = [Picture(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    with pytest.raises(FeatureError, match=rf"no row for .*b\.jpg, .*c\.jpg; .*{tmp_path}"):
        ReadyMade(features).of(pictures)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_rows_that_have_no_direction_are_refused(value: float, tmp_path: Path) -> None:
    """A zero row would be as near to everything."""
    rows = np.ones((2, 4), np.float32)
    rows[1] = value
    features = write_npy(tmp_path / "f.npy", ["a.jpg", "b.jpg"], rows)
    with pytest.raises(
        FeatureError, match=r"1 rows are zero or not finite, first that of .*b\.jpg"
    ):
        ReadyMade(features).of([Picture(tmp_path / "a.jpg"), Picture(tmp_path / "b.jpg")])


def test_a_photo_with_two_rows_is_refused(tmp_path: Path) -> None:
    """Either could be meant, also through a link."""
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    features = write_npy(tmp_path / "f.npy", ["a.jpg", "link.jpg"], np.ones((2, 4), np.float32))
    with pytest.raises(FeatureError, match=r"two rows for .*a\.jpg"):
        ReadyMade(features)


def test_cut_and_turned_pictures_are_refused(tmp_path: Path) -> None:
    """A file knows photos, not their parts."""
    ready = ReadyMade(write_npy(tmp_path / "f.npy", ["a.jpg"], np.ones((1, 4), np.float32)))
    for picture in (
        Picture(tmp_path / "a.jpg", box=(0, 0, 1, 1)),
        Picture(tmp_path / "a.jpg", turns=1),
    ):
        with pytest.raises(FeatureError, match=r"cuts or turns some, first .*a\.jpg"):
            ready.of([picture])


class Runs:
    """What runs a program when it is unpickled by a reader that trusts it."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Print, once read."""
        return exec, ("print('ran')",)  # not print itself, in whose place Ray puts its own


def refused_files(folder: Path) -> dict[str, tuple[Path, str]]:
    ones = np.ones((2, 4), np.float32)
    few = write_npy(folder / "few.npy", ["a.jpg"], ones)
    flat = write_npy(folder / "flat.npy", ["a.jpg"], ones[0])
    whole = write_npy(folder / "whole.npy", ["a.jpg", "b.jpg"], ones.astype(np.int64))  # type: ignore[arg-type]
    np.save(folder / "alone.npy", ones)
    (folder / "text.npy").write_text("1 2 3")
    (folder / "text.parquet").write_text("1 2 3")
    (folder / "runs.pkl").write_bytes(pickle.dumps({"a.jpg": Runs()}))
    (folder / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    (folder / "mixed.pkl").write_bytes(pickle.dumps({"a.jpg": ones[0], "b.jpg": ones[0, :3]}))
    (folder / "empty.pkl").write_bytes(pickle.dumps({}))
    return {
        "suffix": (folder / "f.csv", "ends in .npy, .parquet, .pkl, .pickle"),
        "missing": (folder / "none.npy", "cannot be read"),
        "too few names": (few, "2 rows, but photos for 1"),
        "no rows": (flat, r"float32 \[4\], not floats"),
        "whole numbers": (whole, r"int64 \[2, 4\], not floats"),
        "no list": (folder / "alone.npy", "alone.jsonl is missing"),
        "text as npy": (folder / "text.npy", "not an array"),
        "text as parquet": (folder / "text.parquet", "not Parquet"),
        "not a dictionary": (folder / "list.pkl", "not a dictionary"),
        "lengths": (folder / "mixed.pkl", "of one length"),
        "empty": (folder / "empty.pkl", "of one length"),
    }


def test_files_of_anything_else_are_refused_by_name(tmp_path: Path) -> None:
    """Each with what is wrong about it."""
    for path, why in refused_files(tmp_path).values():
        with pytest.raises(FeatureError, match=why) as caught:
            ReadyMade(path)
        assert str(path) in str(caught.value)


def test_a_pickle_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before it could."""
    (tmp_path / "runs.pkl").write_bytes(pickle.dumps({"a.jpg": Runs()}))
    with pytest.raises(ProtocolError, match=r"builtins\.exec"):
        ReadyMade(tmp_path / "runs.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "give --checkpoint, or --features"),
        (["--checkpoint", "c", "--features", "f.npy"], "give --checkpoint, or --features"),
        (["--features", "f.npy", "--augment", "flip"], "--augment: only with --checkpoint"),
        (["--features", "f.npy", "--sizes", "224", "--cache", "c"], "--cache, --sizes: only with"),
    ],
)
def test_flags_that_contradict_are_refused(
    given: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Embeddings that are there are not made again in another way."""
    argv = [*given, "--protocol", "manifest", "--data", "l.csv", "--out", "o"]
    with pytest.raises(SystemExit, match="2"):
        load_config(EvaluateConfig, prog="p", description="d", argv=argv, environ={})
    assert why in capsys.readouterr().err
