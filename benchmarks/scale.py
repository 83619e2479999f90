"""Past one machine, and towards many rows: Ray and Milvus beside the local engine, memory, opening.

    python -m benchmarks.scale [--full] [--only PART ...] [--scratch FOLDER]

The quick run takes eight minutes of two cores (Ray four, Milvus one, rows three), by the times of
its parts; with --full two million rows are built and searched, which takes
an hour of a core and 20 GB of disk. Exit status 1 when a target is missed.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import scale_milvus, scale_ray, scale_rows
from benchmarks.report import Target, judge, machine_facts
from benchmarks.scale_ray import Compared
from benchmarks.scale_rows import Rows
from index.embedding.ray_session import ray_session

QUICK_SIZES, FULL_SIZES = (20_000, 200_000), (200_000, 2_000_000)
# Of any number of rows: the sample and the scores of k-means, or a shard's lists, whichever is
# more, and half a GiB that Python, torch and faiss take.
MOST_BUILD_GIB = 1.5
MOST_GIB, MOST_OPENING_SECONDS = 6.0, 2.0
MOST_RECALL_DIFFERENCE = 0.01
_ONLY_FULL = "FULL only"
_ONLY_GPU = "a GPU's rate, beside which Ray's own work counts on few processors"


def ray_targets(scratch: Path, *, full: bool) -> list[Target]:
    """Rates past the start-up, and that nothing differs; the same with FULL."""
    del full
    with ray_session("local"):
        real = scale_ray.measure_real(_made(scratch / "real"))
        stub = scale_ray.measure_stub(_made(scratch / "stub"))
    for one in (real, stub):
        print(one.text())
    return [*_compared(real), *_compared(stub, not_here=_ONLY_GPU)]


def _compared(one: Compared, *, not_here: str | None = None) -> list[Target]:
    return [
        Target(f"{one.name}: Ray / local", one.ratio, ">=", 0.8, not_here),
        Target(f"{one.name}: ids and vectors are the same", one.are_same, ">=", 1),
    ]


def milvus_targets(scratch: Path, *, full: bool) -> list[Target]:
    """Recall of candidates found in Milvus; the same with FULL."""
    del full
    measured = scale_milvus.measure(scratch / "milvus")
    for one in measured:
        print(one.text())
    return [
        Target(
            f"recall@10 in {one.nprobe} lists: Milvus's mean from faiss's",
            one.difference,
            "<=",
            MOST_RECALL_DIFFERENCE,
        )
        for one in measured
    ]


def rows_targets(scratch: Path, *, full: bool) -> list[Target]:
    """A build's memory at two sizes, and what two million rows take."""
    measured = list[Rows]()
    for num_rows in FULL_SIZES if full else QUICK_SIZES:
        measured.append(scale_rows.measure(scratch / f"{num_rows}", num_rows))
        print(measured[-1].text(), flush=True)
    most = measured[-1]
    not_here = None if full else _ONLY_FULL
    return [
        *(
            Target(
                f"{one.num_rows} rows: GiB of a build, whatever the rows",
                one.build_peak / 2**30,
                "<=",
                MOST_BUILD_GIB,
            )
            for one in measured
        ),
        Target(
            f"{most.num_rows} rows built and searched: GiB of anonymous memory",
            max(most.build_peak, most.search_peak) / 2**30,
            "<=",
            MOST_GIB,
            not_here,
        ),
        Target(
            f"{most.num_rows} rows: seconds to open by memory map, the slowest",
            max(most.searched.opening),
            "<=",
            MOST_OPENING_SECONDS,
            not_here,
        ),
        Target(
            f"{most.num_rows} rows: recall@10, 0.95 asked",
            most.searched.recall,
            ">=",
            0.95,
            not_here,
        ),
    ]


PARTS = {"ray": ray_targets, "milvus": milvus_targets, "rows": rows_targets}


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="two million rows")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part")
    parser.add_argument("--scratch", type=Path, help="folder to work in; 20 GB with --full")
    options = parser.parse_args()
    print(machine_facts())
    targets = list[Target]()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for name in options.only or PARTS:
            print(f"\n## {name}", flush=True)
            targets += PARTS[name](Path(folder), full=options.full)
    return judge(targets)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
