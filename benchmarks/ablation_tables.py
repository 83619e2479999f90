"""Tables of the ablation's results: mean and spread over seeds, and what must hold of them."""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.ablation_configurations import BASE, CONFIGURATIONS, PRETRAINED, TRAINED
from benchmarks.ablation_judge import PLAIN, WHITENINGS, TaskScores
from benchmarks.ablation_runs import Result
from benchmarks.report import Target

CLASSES, COPIES, INSTANCES = "classes, iconic", "copies", "instances"
COLUMNS = ((CLASSES, "ap"), (COPIES, "recall_at_1"), (COPIES, "ap"), (INSTANCES, "ap"))
_HEADER = "classes AP | copies recall@1 | copies AP | instances AP | seeds"
_RULE = "---|---|---|---|---|"

# What training must give: points of AP above the same trunk without training.
MIN_CLASS_GAIN = 0.05
MIN_COPY_GAIN = 0.0
_TOO_FEW = "the runs it needs are missing"


class Spread(NamedTuple):
    """Mean and sample deviation over seeds; no deviation (0) of a single run."""

    mean: float
    deviation: float

    def differs_from(self, other: "Spread") -> bool:
        """Whether the means are farther apart than both deviations together."""
        return abs(self.mean - other.mean) > self.deviation + other.deviation


def tables(results: Sequence[Result]) -> str:
    """One factor at a time without whitening, then whitenings with and without training."""
    return f"{_factors(results)}\n\n{_whitenings(results)}"


def targets(results: Sequence[Result]) -> Iterator[Target]:
    """Training with the recipe gains classes and loses no copies, both without whitening."""
    wanted = ((CLASSES, MIN_CLASS_GAIN), (COPIES, MIN_COPY_GAIN))
    for task, least in wanted:
        trained = _spread(results, TRAINED.name, PLAIN.name, task, "ap")
        before = _spread(results, PRETRAINED.name, PLAIN.name, task, "ap")
        gain = trained.mean - before.mean if trained and before else float("nan")
        missing = None if trained and before else _TOO_FEW
        yield Target(f"{task}: AP above the pretrained trunk", gain, ">=", least, missing)


def _factors(results: Sequence[Result]) -> str:
    lines = [f"| changed | {_HEADER} |", f"|---|{_RULE}"]
    for configuration in CONFIGURATIONS:
        cells = _cells(results, configuration.name, PLAIN.name, against=(BASE.name, PLAIN.name))
        if cells:
            lines.append(f"| {configuration.factor} | {cells} |")
    return "\n".join(lines)


def _whitenings(results: Sequence[Result]) -> str:
    lines = [f"| model | whitening | {_HEADER} |", f"|---|---|{_RULE}"]
    for name in (PRETRAINED.name, BASE.name):
        lines += [
            f"| {name} | {choice.name} | {cells} |"
            for choice in WHITENINGS
            if (cells := _cells(results, name, choice.name, against=(name, PLAIN.name)))
        ]
    return "\n".join(lines)


def _cells(
    results: Sequence[Result], name: str, whitening: str, *, against: tuple[str, str]
) -> str:
    """Cells of a row, empty without runs; an asterisk where it differs from another row."""
    count = sum(result.configuration == name for result in results)
    if not count:
        return ""
    cells = []
    for task, score in COLUMNS:
        here = _spread(results, name, whitening, task, score)
        there = _spread(results, *against, task, score)
        assert here is not None
        mark = "*" if count > 1 and there is not None and here.differs_from(there) else ""
        spread = f" ± {here.deviation:.3f}" if count > 1 else ""
        cells.append(f"{here.mean:.3f}{spread}{mark}")
    return " | ".join([*cells, str(count)])


def _spread(
    results: Sequence[Result], name: str, whitening: str, task: str, score: str
) -> Spread | None:
    found: list[TaskScores] = [
        result.scores[whitening][task] for result in results if result.configuration == name
    ]
    values = [float(getattr(scores, score)) for scores in found]
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)
