"""The index beside raw faiss, numpy and sqlite3: rates, recall, searches, changes.

    python -m benchmarks.index

Rows are synthetic (see index_data.py), 512 values each, sorted by class; queries are held out.
Everything compared is run in turns. Exit status 1 when a target is missed.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import (
    index_catalog,
    index_changes,
    index_others,
    index_rates,
    index_runbook,
    index_search,
)
from benchmarks.index_data import Views, synthetic_views
from benchmarks.index_folders import Folder, folder_of, timed
from benchmarks.report import Target, judge, machine_facts

QUICK_ROWS, FULL_ROWS = 36_000, 200_000
NUM_QUERIES = 2000
SCANNED_PHOTOS = 200_000
QUICK_DELETE_QUERIES, FULL_DELETE_QUERIES = 20_000, 100_000


def _folder_targets(scratch: Path, views: Views, one: Folder, *, nprobe: int) -> list[Target]:
    """The order of the files, and the number of shards, change nothing."""
    four = folder_of(scratch / "four", views.rows, order=np.arange(len(views.rows)))
    four.build(shard_rows=-(-len(views.rows) // 4))
    shards = index_search.measure_shards(one, four, views, nprobe)
    orders = index_search.measure_orders(scratch / "orders", views)
    return [
        Target("lists of a sorted folder / a shuffled one", orders, "<=", 1.1),
        Target("four shards answer as one (1: yes)", float(shards.same), ">=", 1),
        Target("single queries, four shards / one", shards.slowdown, "<=", 1.5),
    ]


def _full_targets(scratch: Path, views: Views, queries_a_second: float) -> list[Target]:
    """What takes long: graphs of the same rows, and fifty rounds of changes."""
    print("\n## Graphs")
    others = index_others.measure(views)
    print(index_others.table(others))
    print("\n## Fifty rounds")
    rounds = index_runbook.measure(scratch / "rounds", views)
    print(index_runbook.table(rounds))
    return index_others.targets(others, queries_a_second) + index_runbook.targets(rounds)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="200,000 rows instead of 36,000")
    full = parser.parse_args().full
    print(machine_facts())
    views = synthetic_views(FULL_ROWS if full else QUICK_ROWS, num_queries=NUM_QUERIES)
    targets = list[Target]()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        print("\n## Rates")
        rates = index_rates.measure(scratch / "rates", views.rows)
        print(index_rates.table(rates))
        targets += index_rates.targets(rates)
        one = folder_of(scratch / "one", views.rows, order=np.arange(len(views.rows)))
        build_seconds = timed(one.build)
        print("\n## Searches")
        searches = index_search.measure(one, views)
        print(index_search.table(searches))
        targets += index_search.targets(searches)
        targets += _folder_targets(scratch, views, one, nprobe=searches[0].tuned.nprobe or 1)
        if full:
            targets += _full_targets(scratch, views, median(searches[0].ours))
        print("\n## Catalog")
        ingest = index_catalog.measure_ingest(scratch, SCANNED_PHOTOS)
        (catalog,) = (one.root / "catalogs").iterdir()
        hydration = index_catalog.measure_hydration(catalog, len(views.rows))
        targets += index_catalog.targets(ingest, hydration)
        print("\n## Changes")
        num_queries = FULL_DELETE_QUERIES if full else QUICK_DELETE_QUERIES
        changes = index_changes.measure(
            one, views, build_seconds=build_seconds, num_queries=num_queries
        )
        targets += index_changes.targets(changes, full=full)
    return judge(targets)


if __name__ == "__main__":
    raise SystemExit(main())
