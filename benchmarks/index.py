"""The index beside raw faiss, numpy and sqlite3: rates, recall, searches, changes.

    python -m benchmarks.index [--full] [--only PART ...] [--scratch FOLDER]

Rows are synthetic (see index_data.py), 512 values each, sorted by class; queries are held out.
Everything compared is run in turns. Exit status 1 when a target is missed.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks import (
    index_catalog,
    index_changes,
    index_million,
    index_others,
    index_rates,
    index_runbook,
    index_search,
)
from benchmarks.index_data import Views, synthetic_views
from benchmarks.index_folders import Folder, folder_of, timed
from benchmarks.report import Target, judge, machine_facts
from index.manifest import SearchPart

QUICK_ROWS, FULL_ROWS = 36_000, 200_000
NUM_QUERIES = 2000
SCANNED_PHOTOS = 200_000
QUICK_DELETE_QUERIES, FULL_DELETE_QUERIES = 20_000, 100_000
AUTOFAISS = Path("build/autofaiss")


class Run:
    """What the parts share: rows, and one index of them, made when a part first asks for it.

    In a folder `kept` that stays, a later run finds it again.
    """

    def __init__(self, scratch: Path, kept: Path, *, full: bool) -> None:
        self.scratch, self.full = scratch, full
        self._kept = kept / ("one-full" if full else "one")
        self._seconds = self._kept / "seconds"

    @cached_property
    def views(self) -> Views:
        """The rows and queries of this run."""
        return synthetic_views(FULL_ROWS if self.full else QUICK_ROWS, num_queries=NUM_QUERIES)

    @cached_property
    def one(self) -> Folder:
        """An index of all rows, in one shard."""
        if self._seconds.exists():
            return Folder.within(self._kept)
        rows = self.views.rows
        folder = folder_of(self._kept, rows, order=np.arange(len(rows)))
        self._seconds.write_text(str(timed(folder.build)))
        return folder

    def take_one(self) -> tuple[Folder, float]:
        """The same, to be changed, and the seconds of its build."""
        folder, seconds = self.one, float(self._seconds.read_text())
        self._seconds.unlink()
        return folder, seconds

    @cached_property
    def tuned(self) -> tuple[SearchPart, index_search.Search]:
        """Our search of that index, tuned to recall 0.95, and what tuning measured."""
        queries = self.views.queries[: index_search.TUNING_QUERIES]
        return index_search.tuned_search(self.one.ranker(), queries)


def _rates(run: Run) -> list[Target]:
    measured = index_rates.measure(run.scratch / "rates", run.views.rows)
    print(index_rates.table(measured))
    return index_rates.targets(measured)


def _searches(run: Run) -> list[Target]:
    measured = index_search.measure(run.one, run.views)
    print(index_search.table(measured))
    return list(index_search.targets(measured))


def _bytes(run: Run) -> list[Target]:
    found, planned, num_rows = run.one.lists_bytes()
    each = f"{found / num_rows:.1f} bytes each, {planned / num_rows:.1f} planned"
    print(f"lists of {num_rows} rows: {each}")
    return [Target("bytes of the lists, off the plan by", abs(found / planned - 1), "<=", 0.02)]


def _orders(run: Run) -> list[Target]:
    lists = index_search.measure_orders(run.scratch / "orders", run.views)
    return [Target("lists of a sorted folder / a shuffled one", lists, "<=", 1.1)]


def _shards(run: Run) -> list[Target]:
    rows = run.views.rows
    four = folder_of(run.scratch / "four", rows, order=np.arange(len(rows)))
    four.build(shard_rows=-(-len(rows) // 4))
    nprobe = run.tuned[0].nprobe or 1
    shards = index_search.measure_shards(
        run.one.ranker(), four.ranker(), run.views.queries, nprobe=nprobe
    )
    return index_search.shard_targets(shards, 4)


def _catalog(run: Run) -> list[Target]:
    ingest = index_catalog.measure_ingest(run.scratch, SCANNED_PHOTOS)
    (catalog,) = (run.one.root / "catalogs").iterdir()
    hydration = index_catalog.measure_hydration(catalog, len(run.views.rows))
    return list(index_catalog.targets(ingest, hydration))


def _changes(run: Run) -> list[Target]:
    num_queries = FULL_DELETE_QUERIES if run.full else QUICK_DELETE_QUERIES
    folder, seconds = run.take_one()
    changes = index_changes.measure(
        folder, run.views, build_seconds=seconds, num_queries=num_queries
    )
    print(index_changes.table(changes))
    return index_changes.targets(changes, full=run.full)


def _graphs(run: Run) -> list[Target]:
    measured = index_others.measure_graphs(run.views, run.tuned[1])
    print(index_others.table(measured))
    return index_others.targets(measured)


def _autofaiss(run: Run) -> list[Target]:
    measured = index_others.measure_autofaiss(run.views, run.tuned[1], AUTOFAISS)
    print(index_others.table(measured))
    return index_others.targets(measured)


def _rounds(run: Run) -> list[Target]:
    rounds = index_runbook.measure(run.scratch / "rounds", run.views)
    print(index_runbook.table(rounds))
    return index_runbook.targets(rounds)


def _million(run: Run) -> list[Target]:
    measured = index_million.measure(run.scratch / "million")
    print(index_million.table(measured))
    return index_million.targets(measured)


Part = Callable[[Run], list[Target]]
# Changes alter the index that others search.
QUICK_PARTS: dict[str, Part] = {
    "rates": _rates,
    "searches": _searches,
    "bytes": _bytes,
    "orders": _orders,
    "shards": _shards,
    "catalog": _catalog,
    "changes": _changes,
}
FULL_PARTS: dict[str, Part] = {
    "graphs": _graphs,
    "autofaiss": _autofaiss,
    "rounds": _rounds,
    "million": _million,
}
PARTS = QUICK_PARTS | FULL_PARTS


def chosen_parts(only: Sequence[str] | None, *, full: bool) -> list[str]:
    """The parts asked for, in their order; without any, all of a quick or full run."""
    usual = [*FULL_PARTS, *QUICK_PARTS] if full else list(QUICK_PARTS)
    return [name for name in PARTS if name in only] if only else usual


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="200,000 rows instead of 36,000")
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="a part, may be given again"
    )
    parser.add_argument(
        "--scratch", type=Path, help="folder to work in, whose index a later run uses again"
    )
    options = parser.parse_args()
    if options.scratch:
        options.scratch.mkdir(parents=True, exist_ok=True)
    print(machine_facts())
    targets = list[Target]()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        run = Run(Path(folder), options.scratch or Path(folder), full=options.full)
        for name in chosen_parts(options.only, full=options.full):
            print(f"\n## {name}", flush=True)
            targets += PARTS[name](run)
    return judge(targets)


if __name__ == "__main__":
    raise SystemExit(main())
