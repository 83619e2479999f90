"""Two evaluations compared query by query."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer import compare as program
from trainer.evaluation.comparison import ComparisonError, compare
from trainer.evaluation.results import QUERIES


def write(folder: Path, ap: list[float | None], *, queries: str = "q", name: str = "set") -> Path:
    """Write the queries of an evaluation as it does."""
    folder.mkdir()
    names = [f"{queries}{number}" for number in range(len(ap))]
    document = {name: {"queries": names, "values": {"ap": ap}}}
    (folder / QUERIES).write_text(json.dumps(document))
    return folder


def test_a_steady_gain_is_better_and_a_shuffle_is_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries that cannot be answered are left out of both."""
    random = np.random.default_rng(0)
    values = random.uniform(0.2, 0.8, 200)
    gain = values + 0.02 + random.normal(0, 0.02, 200)
    shuffle = values + random.normal(0, 0.02, 200)
    first = write(tmp_path / "a", [*values.tolist(), None])
    better = write(tmp_path / "b", [*gain.tolist(), None])
    same = write(tmp_path / "c", [*shuffle.tolist(), None])
    verdicts = {
        folder.name: [row.verdict for row in compare(first, folder, seed=0)]
        for folder in (better, same)
    }
    assert verdicts == {"b": ["better"], "c": ["noise"]}
    assert compare(better, first, seed=0)[0].verdict == "worse"
    monkeypatch.setattr(sys, "argv", ["compare", "--first", str(first), "--second", str(better)])
    assert program.main() == 0
    assert "| set.ap | " in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """Other queries, other test sets, no results."""
    first = write(tmp_path / "a", [0.5])
    with pytest.raises(ComparisonError, match="not asked the same queries"):
        compare(first, write(tmp_path / "b", [0.5], queries="p"), seed=0)
    with pytest.raises(ComparisonError, match="no test set in common"):
        compare(first, write(tmp_path / "c", [0.5], name="other"), seed=0)
    with pytest.raises(ComparisonError, match="--out folder"):
        compare(first, tmp_path, seed=0)
