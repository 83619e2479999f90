"""Loads on a server: what came back, how fast, and what it cost the server."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.processes import Server

_OK, _REFUSED = 200, 429
# The load begins with an empty queue: its first part says nothing of the state it runs into.
_WARM_SHARE = 0.25
_RESAMPLES = 2000
_LONGEST_SECONDS = 300.0


class Outcome(NamedTuple):
    """Answers and refusals of one load; latencies in seconds, ascending."""

    seconds: float
    answered: list[float]
    refused: list[float]
    num_other: int
    a_slice: list[int]  # answers in each second behind the warm part
    mean_batch: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answers a second, behind the warm part."""
        return float(np.mean(self.a_slice)) if self.a_slice else 0.0

    @property
    def cpu_per_answer(self) -> float:
        """Processor seconds of the server for an answer."""
        return self.cpu_seconds / max(1, len(self.answered))

    def row(self) -> str:
        """Cells of a table: rates, percentiles of milliseconds, mean batch."""
        shares = (50, 95, 99)
        latencies = np.percentile(self.answered, shares) if self.answered else [np.nan] * 3
        times = " | ".join(f"{1000 * each:.0f}" for each in latencies)
        refused = f"{len(self.refused) / self.seconds:.0f}"
        return f"{self.rate:.1f} | {refused} | {times} | {self.mean_batch:.1f}"


def run_load(
    server: Server,
    photos: Path,
    *,
    seconds: float,
    num_clients: int = 1,
    rate: float | None = None,
    field: str = "image",
) -> Outcome:
    """Load a server from a process of its own; raises when the load does not end."""
    words = ["--url", f"{server.url}/search", "--photos", str(photos), "--field", field]
    words += ["--seconds", str(seconds), "--clients", str(num_clients)]
    words += ["--rate", str(rate)] if rate is not None else []
    before = server.cpu_seconds
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.http_load", *words],
        capture_output=True,
        check=True,
        text=True,
        timeout=seconds + _LONGEST_SECONDS,
    )
    return _outcome(json.loads(done.stdout), seconds, server.cpu_seconds - before)


def _outcome(found: dict[str, list[list[float]]], seconds: float, cpu_seconds: float) -> Outcome:
    replies = found["replies"]
    ok = [reply for reply in replies if reply[2] == _OK]
    refused = sorted(reply[1] for reply in replies if reply[2] == _REFUSED)
    batches = [reply[3] for reply in ok if reply[3] is not None]
    counts = Counter(int(reply[0]) for reply in ok)
    return Outcome(
        seconds=seconds,
        answered=sorted(reply[1] for reply in ok),
        refused=refused,
        num_other=len(replies) - len(ok) - len(refused) + int(found["num_broken"]),  # type: ignore[call-overload]
        a_slice=[counts[second] for second in range(int(_WARM_SHARE * seconds), int(seconds))],
        mean_batch=float(np.mean(batches)) if batches else float("nan"),
        cpu_seconds=cpu_seconds,
    )


class Interval(NamedTuple):
    """A ratio and its 95 % interval."""

    ratio: float
    lower: float
    upper: float


def rate_ratio(ours: list[int], theirs: list[int], *, seed: int = 0) -> Interval:
    """How many times more answers a second; seconds are resampled, as they are not alike."""
    draw = np.random.default_rng(seed)

    def means(counts: list[int]) -> np.ndarray:
        return np.mean(draw.choice(counts, (_RESAMPLES, len(counts))), axis=1)

    ratios = means(ours) / np.maximum(means(theirs), 1e-9)
    lower, upper = np.quantile(ratios, (0.025, 0.975))
    return Interval(float(np.mean(ours) / max(np.mean(theirs), 1e-9)), float(lower), float(upper))
