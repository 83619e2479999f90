"""The service under load, beside the bare pipeline, LitServe and a plain FastAPI handler.

    python -m benchmarks.service --litserve DIR

Everything runs on this machine's loopback; the load comes from a process of its own, on the same
cores. DIR holds LitServe (pip install --no-deps --target DIR litserve pyzmq psutil); without it
LitServe is left out, and its targets are missed. What is compared runs in turns. Exit status 1
when a target is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.processes import Server, serving
from benchmarks.report import Target, judge, machine_facts
from benchmarks.service_abuse import fuzzed_statuses, memory_growth
from benchmarks.service_loads import Interval, Outcome, rate_ratio, run_load
from benchmarks.service_parts import LARGE, SMALL, Parts, make_parts, write_jpegs
from multigrain.engine_openvino import has_native_bf16

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
FEWEST_COMPARED = 8
COMPARED = 32
PLAIN_CLIENTS = 8
SATURATING = 300
NUM_ROUNDS = 3
OPEN_SHARES = (0.5, 0.8, 1.2)
NUM_ROWS, QUICK_MOBILENET_ROWS = 100_000, 10_000
FULL_REQUESTS, FULL_FUZZED, QUICK_SHARE = 20_000, 10_000, 1000
# Queues of 128 photos take longer than anyone waits: the loads want to see them to their end.
_PATIENT = ["--request-timeout-ms", "30000"]
_NEEDS_BF16 = "the target is for CPUs that compute in bf16"


class Bare(NamedTuple):
    """The bare pipeline: photos a second, processor seconds a photo, seconds of a lone one."""

    rate: float
    cpu_seconds: float
    lone_seconds: float


class Bench(NamedTuple):
    """Servers of one index, and photos to load them with; `litserve` None where it is absent."""

    parts: Parts
    small: Path
    large: Path
    ours: Server
    litserve: Server | None

    def bare(self, photos: Path, *, seconds: float = 6.0) -> Bare:
        """The bare pipeline, once."""
        words = ["--index", self.parts.index, "--cache", self.parts.cache, "--photos", photos]
        command = [sys.executable, "-m", "benchmarks.service_bare", *map(str, words)]
        command += ["--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=300)
        return Bare(**json.loads(done.stdout))


class Level(NamedTuple):
    """One number of clients: ours, and LitServe's."""

    num_clients: int
    ours: Outcome
    theirs: Outcome | None

    @property
    def ratio(self) -> Interval | None:
        """Answers of ours for one of LitServe's."""
        return rate_ratio(self.ours.a_slice, self.theirs.a_slice) if self.theirs else None


class Round(NamedTuple):
    """The bare pipeline, ours with one client and with many, one after the other."""

    bare: Bare
    lone: Outcome
    many: Outcome


def measure_rounds(bench: Bench) -> list[Round]:
    """What is compared with the bare pipeline, in turns with it."""
    return [
        Round(
            bench.bare(bench.small),
            run_load(bench.ours, bench.small, seconds=5, num_clients=1),
            run_load(bench.ours, bench.small, seconds=12, num_clients=COMPARED),
        )
        for _ in range(NUM_ROUNDS)
    ]


def measure_levels(bench: Bench, *, rate: float) -> list[Level]:
    """Closed loops of ever more clients, each long enough for every client to be answered twice."""
    levels = list[Level]()
    for num_clients in LEVELS:
        seconds = float(round(max(6.0, 2.5 * num_clients / rate)))
        ours = run_load(bench.ours, bench.small, seconds=seconds, num_clients=num_clients)
        theirs = None
        if bench.litserve is not None:
            theirs = run_load(
                bench.litserve,
                bench.small,
                seconds=seconds,
                num_clients=num_clients,
                field="request",
            )
        levels.append(Level(num_clients, ours, theirs))
    return levels


def print_levels(levels: list[Level]) -> None:
    """Both servers, a row a level."""
    print("\n| server | clients | answers/s | refused/s | p50 ms | p95 ms | p99 ms | batch |")
    print("|---|---|---|---|---|---|---|---|")
    for level in levels:
        print(f"| ours | {level.num_clients} | {level.ours.row()} |")
        if level.theirs is not None:
            print(f"| LitServe | {level.num_clients} | {level.theirs.row()} |")


def bare_targets(rounds: list[Round]) -> list[Target]:
    """Ours against the bare pipeline of the same round."""
    cpu = median(each.many.cpu_per_answer / each.bare.cpu_seconds for each in rounds)
    rate = median(each.many.rate / each.bare.rate for each in rounds)
    lone = median(median(each.lone.answered) / each.bare.lone_seconds for each in rounds)
    return [
        Target(f"processor time an answer / bare, {COMPARED} clients", cpu, "<=", 1.15),
        Target(f"answers/s / bare, {COMPARED} clients", rate, ">=", 0.75),
        Target("a lone request / a bare photo, p50", lone, "<=", 1.25),
    ]


def litserve_targets(levels: list[Level]) -> Iterator[Target]:
    """Ours against LitServe, with the interval of the ratio."""
    for level in levels:
        if level.num_clients < FEWEST_COMPARED:
            continue
        ratio = level.ratio or Interval(float("nan"), float("nan"), float("nan"))
        interval = f"{ratio.ratio:.2f} [{ratio.lower:.2f}, {ratio.upper:.2f}]"
        name = f"answers/s / LitServe, {level.num_clients} clients, {interval}"
        yield Target(name, ratio.ratio, ">=", 1.0)


def plain_target(bench: Bench, folder: Path, *, rate: float) -> Target:
    """Ours against one fp32 forward pass of torch a request."""
    words = ["--index", str(bench.parts.index)]
    with serving("benchmarks.service_plain", words, log=folder / "plain.log") as plain:
        outcome = run_load(plain, bench.small, seconds=10, num_clients=PLAIN_CLIENTS)
    print(f"\nplain FastAPI, {PLAIN_CLIENTS} clients: {outcome.rate:.1f} answers/s")
    not_here = None if has_native_bf16() else _NEEDS_BF16
    return Target("answers/s / plain FastAPI", rate / outcome.rate, ">=", 5.0, not_here)


def refusal_target(bench: Bench) -> Target:
    """How long refusals take while far more clients come than fit the queue."""
    outcome = run_load(bench.ours, bench.small, seconds=8, num_clients=SATURATING)
    print(f"\n{SATURATING} clients: {outcome.row()} (answers/s, refused/s, p50, p95, p99, batch)")
    slowest = outcome.refused[int(0.99 * len(outcome.refused))] if outcome.refused else float("nan")
    return Target("ms of a refusal, p99, saturated", 1000 * slowest, "<=", 100.0)


def print_other_loads(bench: Bench, *, rate: float) -> None:
    """Open loops, and photos of 3 MB."""
    print("\n| load | answers/s | refused/s | p50 ms | p95 ms | p99 ms | batch |")
    print("|---|---|---|---|---|---|---|")
    for share in OPEN_SHARES:
        outcome = run_load(bench.ours, bench.small, seconds=8, rate=share * rate)
        print(f"| open loop, {share * rate:.0f} photos/s | {outcome.row()} |")
    for num_clients in (1, 8, 32):
        outcome = run_load(bench.ours, bench.large, seconds=8, num_clients=num_clients)
        print(f"| 3 MB, {num_clients} clients | {outcome.row()} |")


def abuse_targets(bench: Bench, *, full: bool) -> list[Target]:
    """Malformed and invented bodies."""
    share = 1 if full else QUICK_SHARE
    statuses = fuzzed_statuses(bench.ours, bench.small, num_bodies=FULL_FUZZED // share, seed=1)
    growth = memory_growth(bench.ours, bench.small, num_requests=FULL_REQUESTS // share, seed=2)
    print(f"\nfuzzed bodies by status: {dict(sorted(statuses.items()))}")
    print(f"memory of the service: {bench.ours.anonymous_bytes / 1e6:.0f} MB")
    bad = sum(num for status, num in statuses.items() if status >= 500 or status == 0)
    not_here = None if full else "FULL only"
    return [
        Target("fuzzed bodies without an answer below 500", float(bad), "<=", 0),
        Target(f"memory behind {FULL_REQUESTS} requests", growth, "<=", 1.05, not_here),
    ]


@contextmanager
def open_bench(
    scratch: Path, *, trunk: str, feature_dim: int, num_rows: int, litserve: Path | None
) -> Iterator[Bench]:
    """Make an index for a trunk, and start ours and LitServe on it."""
    parts = make_parts(scratch / trunk, trunk=trunk, feature_dim=feature_dim, num_rows=num_rows)
    small, large = scratch / "small", scratch / "large"
    words = ["--index", str(parts.index)]
    with ExitStack() as stack:
        cached = [*words, "--cache-dir", str(parts.cache), *_PATIENT]
        ours = stack.enter_context(serving("service", cached, log=scratch / "ours.log"))
        theirs = None
        if litserve is not None:
            path = os.pathsep.join([str(litserve), str(Path.cwd())])
            rival = serving(
                "benchmarks.service_litserve",
                [*words, "--cache", str(parts.cache)],
                log=scratch / "litserve.log",
                environ=os.environ | {"PYTHONPATH": path},
            )
            theirs = stack.enter_context(rival)
        yield Bench(parts, small, large, ours, theirs)


def measure_resnet(scratch: Path, *, full: bool, litserve: Path | None) -> Iterator[Target]:
    """All targets: they are those of a ResNet-50."""
    opened = open_bench(
        scratch, trunk="resnet50", feature_dim=2048, num_rows=NUM_ROWS, litserve=litserve
    )
    with opened as bench:
        print(f"\n## ResNet-50 at 224 px, 0.3 MB, {NUM_ROWS} rows")
        rounds = measure_rounds(bench)
        for each in rounds:
            print(
                f"bare {each.bare.rate:.1f} photos/s, {each.bare.cpu_seconds:.4f} s of processor, "
                f"lone {1000 * each.bare.lone_seconds:.0f} ms; ours {each.many.rate:.1f}, "
                f"{each.many.cpu_per_answer:.4f} s, {1000 * median(each.lone.answered):.0f} ms"
            )
        rate = median(each.many.rate for each in rounds)
        yield from bare_targets(rounds)
        levels = measure_levels(bench, rate=rate)
        print_levels(levels)
        yield from litserve_targets(levels)
        yield plain_target(bench, scratch, rate=rate)
        yield refusal_target(bench)
        print_other_loads(bench, rate=rate)
        yield from abuse_targets(bench, full=full)


def print_mobilenet(scratch: Path, *, full: bool) -> None:
    """A trunk so fast that what is around it shows."""
    num_rows = NUM_ROWS if full else QUICK_MOBILENET_ROWS
    opened = open_bench(
        scratch, trunk="mobilenet_v2", feature_dim=1280, num_rows=num_rows, litserve=None
    )
    with opened as bench:
        bare = bench.bare(bench.small)
        print(f"\n## MobileNetV2 at 224 px, 0.3 MB, {num_rows} rows; bare {bare.rate:.1f} photos/s")
        print_levels(
            [
                Level(each, run_load(bench.ours, bench.small, seconds=5, num_clients=each), None)
                for each in (1, 8, 32)
            ]
        )


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litserve", type=Path, help="folder LitServe is installed in")
    parser.add_argument("--full", action="store_true", help="20,000 requests, 10,000 fuzzed bodies")
    given = parser.parse_args()
    print(machine_facts())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_jpegs(scratch / "small", SMALL)
        write_jpegs(scratch / "large", LARGE)
        targets = list(measure_resnet(scratch, full=given.full, litserve=given.litserve))
        print_mobilenet(scratch, full=given.full)
    return judge(targets)


if __name__ == "__main__":
    sys.exit(main())
