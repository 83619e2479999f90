"""What each choice of training is worth: one factor at a time, with the recipe `cpu-small`.

    python -m benchmarks.ablation --data DATA [--only NAME ...] [--seeds 0 1 2] [--no-train]

Trains on DATA/classes/train, scores class, copy and instance retrieval by exact search, and
prints tables with mean and spread over seeds. Every finished run is a file below --out, so an
interrupted benchmark goes on where it was. Exits with 1 when a target is missed.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablation_configurations import CONFIGURATIONS, RECIPE, SEEDS, Configuration, Run
from benchmarks.ablation_judge import EvaluationPhotos
from benchmarks.ablation_runs import measure, read_result, write_result
from benchmarks.ablation_tables import tables, targets
from benchmarks.quality import fill_table
from benchmarks.report import judge, machine_facts

MARKERS = ("<!-- ablation -->\n", "<!-- end of ablation -->")


def main(argv: Sequence[str]) -> int:
    """Do the runs that are missing, print the tables, and judge."""
    args = _parse(argv)
    chosen = [c for c in CONFIGURATIONS if not args.only or c.name in args.only]
    photos = EvaluationPhotos(args.data.resolve())
    if not args.no_train:
        for run in _missing(chosen, args.seeds, args.out):
            _do(run, photos, args.out, num_threads=args.threads)
    results = [
        result
        for run in _runs(CONFIGURATIONS, SEEDS)
        if (result := read_result(run, args.out)) is not None
    ]
    minutes = sum(result.cpu_seconds for result in results) / 60
    text = (
        f"{tables(results)}\n\n`make bench-ablation`, recipe {RECIPE.name}, {len(results)} runs, "
        f"{minutes:.0f} minutes of processor time; {machine_facts()}.\n"
    )
    print(text)
    if args.table:
        fill_table(args.table, text, markers=MARKERS)
    return judge(targets(results))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("MULTIGRAIN_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=Path("build/ablation"), help="results' folder")
    names = [configuration.name for configuration in CONFIGURATIONS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, choices=SEEDS)
    parser.add_argument("--threads", type=int, default=1, help="of the trunk")
    parser.add_argument("--no-train", action="store_true", help="the tables of what is there")
    parser.add_argument("--table", type=Path, help="document whose table is replaced")
    return parser.parse_args(argv)


def _runs(configurations: Sequence[Configuration], seeds: Sequence[int]) -> list[Run]:
    """All configurations of a seed before the next one, so that half a table is a table."""
    return [
        Run(configuration, seed)
        for seed in seeds
        for configuration in configurations
        if configuration.is_trained or seed == SEEDS[0]
    ]


def _missing(configurations: Sequence[Configuration], seeds: Sequence[int], out: Path) -> list[Run]:
    return [run for run in _runs(configurations, seeds) if read_result(run, out) is None]


def _do(run: Run, photos: EvaluationPhotos, out: Path, *, num_threads: int) -> None:
    if read_result(run, out) is not None:
        return  # another process was faster
    start = time.monotonic()
    result = measure(run, photos, out, num_threads=num_threads)
    write_result(result, run, out)
    print(f"{run.name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
