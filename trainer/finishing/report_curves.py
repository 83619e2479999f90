"""The curves of a run, from metrics.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainer.finishing.report_svg import Line, line_chart

Record = Mapping[str, Any]

_TIMES = (
    "step_seconds",
    "data_wait_seconds",
    "forward_seconds",
    "backward_seconds",
    "optimiser_seconds",
)
# What belongs on one chart; every other number of a record gets a chart of its own.
_PANELS = (
    ("Loss", ("loss", "cross_entropy", "margin")),
    ("Validation", ("top1", "top5", "copy_recall_at_1", "class_ap")),
    ("Mean distance of pairs", ("mean_positive_distance", "mean_negative_distance")),
    ("Shares of pairs", ("active_share", "fallback_share")),
    ("Learning rate", ("learning_rate",)),
    ("Views a second", ("views_per_second",)),
    ("Seconds a step", _TIMES),
    ("Exponent p", ("p",)),
    ("Beta", ("beta",)),
)
_NO_CURVES = frozenset(("step", "epoch", "images", "num_steps"))


class Panel(NamedTuple):
    """A titled chart, as SVG."""

    title: str
    svg: str


def read_metrics(path: Path) -> list[Record]:
    """Return the records of metrics.jsonl; a line torn by a kill is left out."""
    if not path.exists():
        return []
    return list(_records(path.read_text(encoding="utf-8", errors="replace").splitlines()))


def curves(records: Sequence[Record]) -> list[Panel]:
    """Draw every number that changes, by step."""
    names = dict.fromkeys(name for record in records for name in record)
    known = {name for _, members in _PANELS for name in members} | _NO_CURVES
    others = [(name.replace("_", " ").capitalize(), (name,)) for name in names if name not in known]
    panels = []
    for title, members in (*_PANELS, *others):
        lines = [line for name in members if (line := _line(name, records)).points]
        changes = any(len({value for _, value in line.points}) > 1 for line in lines)
        # A validation made once still says something; a constant does not.
        if changes or (lines and title == "Validation"):
            panels.append(Panel(title, line_chart(lines)))
    return panels


def _line(name: str, records: Sequence[Record]) -> Line:
    points = [
        (float(record["step"]), float(record[name]))
        for record in records
        if _is_number(record, name)
    ]
    return Line(name.replace("_", " "), points)


def _is_number(record: Record, name: str) -> bool:
    value = record.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _records(lines: Sequence[str]) -> Iterator[Record]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and _is_number(record, "step"):
            yield record
