"""Loads on a server, each from a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import Server
from benchmarks.service_outcome import Outcome, bursts_of

_OK, _REFUSED = 200, 429
# The load begins with an empty queue: its first part says nothing of the state it runs into.
_WARM_SHARE = 0.25
_LONGEST_SECONDS = 300.0
# What a load's process takes to begin, on a busy machine.
LOAD_STARTS_SECONDS = 1.0


class Loading:
    """A load under way, in a process of its own."""

    def __init__(self, server: Server, words: list[str], *, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._cpu_before = server.cpu_seconds
        command = [sys.executable, "-m", "benchmarks.http_load", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def outcome(self) -> Outcome:
        """Wait for its end; raises when it failed, or does not end."""
        try:
            found, _ = self._process.communicate(timeout=self._seconds + _LONGEST_SECONDS)
        finally:
            self._process.kill()
        if self._process.returncode:
            raise RuntimeError(f"the load on {self._server.url} failed")
        cpu_seconds = self._server.cpu_seconds - self._cpu_before
        return _outcome(json.loads(found), self._seconds, cpu_seconds)


def begin_load(
    server: Server,
    photos: Path,
    *,
    seconds: float,
    num_clients: int = 1,
    rate: float | None = None,
    field: str = "image",
) -> Loading:
    """Load a server with a closed loop of clients, or with `rate` photos a second."""
    words = ["--url", f"{server.url}/search", "--photos", str(photos), "--field", field]
    words += ["--seconds", str(seconds), "--clients", str(num_clients)]
    words += ["--rate", str(rate)] if rate is not None else []
    return Loading(server, words, seconds=seconds)


def run_load(server: Server, photos: Path, **how: Any) -> Outcome:
    """What came back of a load that `begin_load` begins."""
    return begin_load(server, photos, **how).outcome()


def _outcome(found: dict[str, Any], seconds: float, cpu_seconds: float) -> Outcome:
    replies = found["replies"]
    ok = [reply for reply in replies if reply[2] == _OK]
    refused = sorted(reply[1] for reply in replies if reply[2] == _REFUSED)
    times = [reply[0] for reply in ok]  # in the order they came
    return Outcome(
        seconds=seconds,
        answered=sorted(reply[1] for reply in ok),
        refused=refused,
        num_other=len(replies) - len(ok) - len(refused) + found["num_broken"],
        bursts=bursts_of([at for at in times if _WARM_SHARE * seconds <= at < seconds]),
        batches=[reply[3] for reply in ok if reply[3] is not None],
        cpu_seconds=cpu_seconds,
        late=sorted(found["late"]),
    )
