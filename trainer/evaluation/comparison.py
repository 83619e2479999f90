"""Two models on the same queries: which differences are more than noise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain.bootstrap import Difference, paired_difference
from multigrain.errors import MultiGrainError
from multigrain.rank_metrics import Values
from trainer.evaluation.results import QUERIES


class ComparisonError(MultiGrainError):
    """Results that cannot be compared."""


class Compared(NamedTuple):
    """A metric of a test set in both: `first` and `second` are its means."""

    name: str
    first: float
    second: float
    difference: Difference

    @property
    def verdict(self) -> str:
        """What the difference says of the second model."""
        if self.difference.is_noise:
            return "noise"
        return "better" if self.difference.mean > 0 else "worse"


def compare(first: Path, second: Path, *, seed: int) -> list[Compared]:
    """Compare the folders of two evaluations, metric by metric.

    Only metrics that are means over queries have values to pair. Raises ComparisonError for
    folders without results, without a test set in common, or with other queries in one.
    """
    both = _values(first), _values(second)
    names = [name for name in both[0] if name in both[1]]
    if not names:
        raise ComparisonError(f"{first} and {second} have no test set in common")
    return [row for name in names for row in _compared(name, both[0][name], both[1][name], seed)]


def markdown(rows: list[Compared]) -> str:
    """One line a metric."""
    lines = [
        "| metric | first | second | difference | 95 % interval | second is |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.first:.4f} | {row.second:.4f} | {row.difference.mean:+.4f} | "
        f"{row.difference.interval.low:+.4f} to {row.difference.interval.high:+.4f} | "
        f"{row.verdict} |"
        for row in rows
    ]
    return "\n".join(lines)


def _compared(
    name: str, first: dict[str, Any], second: dict[str, Any], seed: int
) -> Iterator[Compared]:
    if first["queries"] != second["queries"]:
        raise ComparisonError(f"{name}: the two were not asked the same queries in the same order")
    for metric, values in first["values"].items():
        if metric in second["values"]:
            pair = _array(values), _array(second["values"][metric])
            means = [float(np.nanmean(own)) for own in pair]
            difference = paired_difference(*pair, seed=seed)
            yield Compared(f"{name}.{metric}", means[0], means[1], difference)


def _values(folder: Path) -> dict[str, Any]:
    path = folder / QUERIES
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ComparisonError(
            f"{path} cannot be read ({error}): name the --out folder of trainer.evaluate"
        ) from error
    return found


def _array(values: list[float | None]) -> Values:
    return np.array([np.nan if value is None else value for value in values], np.float64)
