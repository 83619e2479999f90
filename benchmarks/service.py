"""The service under load, beside the bare pipeline, LitServe and a plain FastAPI handler.

    python -m benchmarks.service --litserve DIR
    python -m benchmarks.service --only refusals --scratch DIR

Everything runs on this machine's loopback; the load comes from a process of its own, on the same
cores. `--litserve` names the folder LitServe is installed in (pip install --no-deps --target DIR
litserve pyzmq psutil); without it the targets beside LitServe are missed. What is compared runs in
turns. Exit status 1 when a target is missed.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.report import Target, judge, machine_facts
from benchmarks.service_abuse import endure, fuzzed_statuses
from benchmarks.service_bench import Bench, open_bench, plain_on
from benchmarks.service_levels import compare_with_litserve
from benchmarks.service_loads import run_load
from benchmarks.service_refusals import measure_refusals
from benchmarks.service_rounds import compare_with_bare
from multigrain.engine_openvino import has_native_bf16

PLAIN_CLIENTS = 8
OPEN_SHARES = (0.5, 0.8, 1.2)
NUM_ROWS, QUICK_MOBILENET_ROWS = 100_000, 10_000
FULL_REQUESTS, FULL_FUZZED, QUICK_SHARE = 20_000, 10_000, 1000
MOBILENET, ABUSE = WITH_MOBILENET = ("mobilenet", "abuse")
_NEEDS_BF16 = "the target is for CPUs that compute in bf16"


def compare_with_plain(bench: Bench) -> list[Target]:
    """Ours against one fp32 forward pass of torch a request."""
    how = {"seconds": 8.0, "num_clients": PLAIN_CLIENTS}
    with plain_on(bench) as server:
        ours, plain = bench.load(**how), run_load(server, bench.small, **how)
    print(f"\n{PLAIN_CLIENTS} clients, answers/s: {ours.rate:.1f}, plain FastAPI {plain.rate:.1f}")
    not_here = None if has_native_bf16() else _NEEDS_BF16
    return [Target("answers/s / plain FastAPI", ours.rate / plain.rate, ">=", 5.0, not_here)]


def print_other_loads(bench: Bench) -> list[Target]:
    """Open loops, and photos of 3 MB; none has a target."""
    rate = bench.load(seconds=6, num_clients=32).rate
    print("\n| load | answers/s | refused/s | p50 ms | p95 ms | p99 ms | batch |")
    print("|---|---|---|---|---|---|---|")
    for share in OPEN_SHARES:
        outcome = bench.load(seconds=8, rate=share * rate)
        print(f"| open loop, {share * rate:.0f} photos/s | {outcome.row()} |")
    for num_clients in (1, 8, 32):
        outcome = run_load(bench.ours, bench.large, seconds=6, num_clients=num_clients)
        print(f"| 3 MB, {num_clients} clients | {outcome.row()} |", flush=True)
    return []


def measure_abuse(bench: Bench, *, full: bool) -> list[Target]:
    """Malformed and invented bodies; neither statuses nor memory depend on the trunk."""
    share = 1 if full else QUICK_SHARE
    fuzzed = fuzzed_statuses(bench.ours, bench.small, num_bodies=FULL_FUZZED // share, seed=1)
    endured = endure(bench.ours, bench.small, num_requests=FULL_REQUESTS // share, seed=2)
    print(f"\nfuzzed bodies by status: {dict(sorted(fuzzed.items()))}")
    print(f"requests of the long run by status: {dict(sorted(endured.statuses.items()))}")
    print(f"memory of the service: {bench.ours.anonymous_bytes / 1e6:.0f} MB")
    both = fuzzed + endured.statuses
    bad = sum(num for status, num in both.items() if status >= 500 or status == 0)
    not_here = None if full else "FULL only"
    return [
        Target("bodies without an answer below 500", float(bad), "<=", 0),
        Target(
            f"memory behind {FULL_REQUESTS} requests", endured.memory_growth, "<=", 1.05, not_here
        ),
    ]


def print_levels(bench: Bench) -> None:
    """Closed loops, beside the bare pipeline."""
    bare = bench.bare(seconds=4)
    print(f"bare {bare.rate:.1f} photos/s")
    print("\n| clients | answers/s | refused/s | p50 ms | p95 ms | p99 ms | batch |")
    print("|---|---|---|---|---|---|---|")
    for num_clients in (1, 8, 32):
        outcome = bench.load(seconds=5, num_clients=num_clients)
        print(f"| {num_clients} | {outcome.row()} |", flush=True)


def measure_mobilenet(scratch: Path, chosen: set[str], *, full: bool) -> Iterator[Target]:
    """A trunk so fast that what is around it shows, and that many requests take little time."""
    num_rows = NUM_ROWS if full else QUICK_MOBILENET_ROWS
    opened = open_bench(scratch, trunk="mobilenet_v2", feature_dim=1280, num_rows=num_rows)
    with opened as bench:
        print(f"\n## MobileNetV2 at 224 px, 0.3 MB, {num_rows} rows")
        if MOBILENET in chosen:
            print_levels(bench)
        if ABUSE in chosen:
            yield from measure_abuse(bench, full=full)


def parts_of(litserve: Path | None) -> dict[str, Callable[[Bench], list[Target]]]:
    """What is measured with a ResNet-50, in the order it is."""
    return {
        "bare": compare_with_bare,
        "litserve": lambda bench: compare_with_litserve(bench, litserve),
        "plain": compare_with_plain,
        "refusals": measure_refusals,
        "loads": print_other_loads,
    }


def measure(
    scratch: Path, *, only: str | None, full: bool, litserve: Path | None
) -> Iterator[Target]:
    """All targets, or those of one part."""
    parts = parts_of(litserve)
    chosen = {only} if only is not None else {*parts, *WITH_MOBILENET}
    if not chosen.isdisjoint(parts):
        opened = open_bench(scratch, trunk="resnet50", feature_dim=2048, num_rows=NUM_ROWS)
        with opened as bench:
            print(f"\n## ResNet-50 at 224 px, 0.3 MB, {NUM_ROWS} rows")
            for name, part in parts.items():
                if name in chosen:
                    yield from part(bench)
    if not chosen.isdisjoint(WITH_MOBILENET):
        yield from measure_mobilenet(scratch, chosen, full=full)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litserve", type=Path, help="folder LitServe is installed in")
    parser.add_argument("--full", action="store_true", help="20,000 requests, 10,000 fuzzed bodies")
    names = [*parts_of(None), *WITH_MOBILENET]
    parser.add_argument("--only", choices=names, help="measure one part")
    parser.add_argument("--scratch", type=Path, help="where indexes are kept for another time")
    given = parser.parse_args()
    # The servers are ended with this process, also when somebody else ends it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    print(machine_facts())
    with ExitStack() as stack:
        scratch = given.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        found = measure(scratch, only=given.only, full=given.full, litserve=given.litserve)
        return judge(list(found))


if __name__ == "__main__":
    sys.exit(main())
