"""The servers that are compared, started on one index, and the bare pipeline beside them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import Server, serving
from benchmarks.service_loads import Loading, begin_load
from benchmarks.service_outcome import Outcome
from benchmarks.service_parts import LARGE, SMALL, Parts, make_parts, write_jpegs

# Queues of 128 photos take longer than anyone waits: the loads want to see them to their end.
_PATIENT = ["--request-timeout-ms", "30000"]


class Bare(NamedTuple):
    """The bare pipeline: photos a second, processor seconds a photo, seconds of a lone one."""

    rate: float
    cpu_seconds: float
    lone_seconds: float


class Bench(NamedTuple):
    """Ours on an index, and photos of about 0.3 and 3 MB to load it with."""

    parts: Parts
    small: Path
    large: Path
    ours: Server

    def load(self, **how: Any) -> Outcome:
        """Load ours with small photos, to the end."""
        return self.begin_load(**how).outcome()

    def begin_load(self, **how: Any) -> Loading:
        """Begin to load ours with small photos."""
        return begin_load(self.ours, self.small, **how)

    def bare(self, *, seconds: float) -> Bare:
        """The bare pipeline on small photos, once."""
        words = ["--index", self.parts.index, "--cache", self.parts.cache, "--photos", self.small]
        command = [sys.executable, "-m", "benchmarks.service_bare", *map(str, words)]
        command += ["--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=300)
        return Bare(**json.loads(done.stdout))


@contextmanager
def open_bench(scratch: Path, *, trunk: str, feature_dim: int, num_rows: int) -> Iterator[Bench]:
    """Start ours on an index for a trunk; the index and the photos are made where they are not."""
    folder = scratch / f"{trunk}-{num_rows}"
    parts = make_parts(folder, trunk=trunk, feature_dim=feature_dim, num_rows=num_rows)
    small = write_jpegs(scratch / "small", SMALL)
    large = write_jpegs(scratch / "large", LARGE)
    words = ["--index", str(parts.index), "--cache-dir", str(parts.cache), *_PATIENT]
    with serving("service", words, log=scratch / "ours.log") as ours:
        yield Bench(parts, small, large, ours)


@contextmanager
def litserve_on(bench: Bench, installed: Path) -> Iterator[Server]:
    """Start LitServe, which is installed in a folder of its own, on the same index."""
    path = os.pathsep.join([str(installed), str(Path.cwd())])
    words = ["--index", str(bench.parts.index), "--cache", str(bench.parts.cache)]
    log, environ = bench.small.parent / "litserve.log", os.environ | {"PYTHONPATH": path}
    with serving("benchmarks.service_litserve", words, log=log, environ=environ) as litserve:
        yield litserve


@contextmanager
def plain_on(bench: Bench) -> Iterator[Server]:
    """Start a plain FastAPI handler on the same index."""
    words = ["--index", str(bench.parts.index)]
    with serving("benchmarks.service_plain", words, log=bench.small.parent / "plain.log") as plain:
        yield plain
