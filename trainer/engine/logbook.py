"""What a run leaves written about itself: metrics.jsonl, TensorBoard's files, train.log."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer.engine.runfolder import RunFolder

Say = Callable[[str], None]
_SHOWN = ("loss", "learning_rate", "views_per_second", "memory_megabytes")


class TrainLog:
    """Says lines and keeps them: in memory until the run's folder is open, then in train.log."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._waiting: list[str] = []
        self._path: Path | None = None

    def __call__(self, line: str) -> None:
        """Say a line and keep it."""
        self._say(line)
        self.keep(line)

    def keep(self, line: str) -> None:
        """Keep a line without saying it."""
        self._waiting.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        if self._path is not None:
            self._flush(self._path)

    def open(self, path: Path) -> None:
        """Write to this file from now on, what has been said so far first."""
        self._path = path
        self._flush(path)

    def _flush(self, path: Path) -> None:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(self._waiting)
        self._waiting.clear()


class Board(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a curve."""

    def close(self) -> None:
        """Write what is left."""


class Logbook:
    """Records of a run; only the first process has one that writes."""

    def __init__(self, run: RunFolder, *, keep: Say, board: Callable[[int], Board | None]) -> None:
        self._run = run
        self._keep = keep
        self._open_board = board
        self._board: Board | None = None
        self.num_lines = 0
        self.last = ""

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object to metrics.jsonl, and its numbers to TensorBoard's curves.

        JSON knows no NaN: what is no number becomes null.
        """
        finite = {name: _finite(value) for name, value in record.items()}
        with self._run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")
        self.num_lines += 1
        self.last = line_of(record)
        self._keep(self.last)
        if self._board is not None:
            for name, value in finite.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(name, value, record["step"])

    def start(self, num_lines: int, *, step: int) -> None:
        """Keep the first lines of metrics.jsonl, those that a state counts, and append to them."""
        self._run.keep_metrics(num_lines)
        self.num_lines = num_lines
        self._board = self._open_board(step)

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def board_opener(run: RunFolder, *, wanted: bool, say: Say) -> Callable[[int], Board | None]:
    """Return what opens TensorBoard's writer, or None where it is not wanted or not installed."""

    def open_board(step: int) -> Board | None:
        if not wanted:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            say("TensorBoard is not installed: metrics.jsonl holds the curves")
            return None
        writer: Board = SummaryWriter(run.root / "tensorboard", purge_step=step + 1)
        return writer

    return open_board


def line_of(record: Mapping[str, Any]) -> str:
    """Return a record as a line for people, the bottleneck named."""
    numbers = " ".join(f"{name} {record[name]:.4g}" for name in _SHOWN if name in record)
    if not numbers:  # scores of a validation
        numbers = " ".join(
            f"{name} {value:.4g}" for name, value in record.items() if name not in {"step", "epoch"}
        )
    limit = f" bottleneck {record['bottleneck']}" if "bottleneck" in record else ""
    return f"step {record['step']} epoch {record['epoch']:.2f} {numbers}{limit}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
