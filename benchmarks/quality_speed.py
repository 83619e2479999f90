"""How fast answers are scored, re-ranked and grouped, beside what was wanted.

    python -m benchmarks.quality_speed [--table docs/quality.md] [--full]

A quick run takes a tenth of the lists and a tenth of the pairs, and multiplies by ten. Exits with
1 when a target is missed.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import quality_scores
from benchmarks.quality import fill_table
from benchmarks.report import Target, judge, machine_facts
from index.grouping.components import Components
from index.grouping.near import compared_pairs
from index.searching.half import unit
from multigrain.reciprocal import reranked_rows

MARKERS = ("<!-- speed -->\n", "<!-- end of speed -->")
MAX_RERANK_SECONDS = 60.0
MAX_DUPLICATES_SECONDS = 120.0
NUM_ROWS = 100_000
NUM_QUERIES = 10_000
NUM_LISTED = 200
DIM = 512
QUICK_SHARE = 10
FAMILY = 10  # rows that are near each other, so that lists and groups are not those of noise
SEED = 20190219

Rows = NDArray[np.float32]


class Measured(NamedTuple):
    """Seconds of the whole task, and what of it was done."""

    task: str
    seconds: float
    most: float


def main(argv: Sequence[str]) -> int:
    """Measure the three; print, fill the document's list and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="document whose list is replaced")
    parser.add_argument("--full", action="store_true", help="whole tasks, nothing multiplied")
    args = parser.parse_args(argv)
    searched = quality_scores.measure(full=args.full)
    rows = families(NUM_ROWS)
    share = 1 if args.full else QUICK_SHARE
    measured = [reranking(rows, share), duplicates(rows, share)]
    lines = [quality_scores.line(searched), *map(_line, measured)]
    shown = "\n".join(f"- {line}" for line in lines) + f"\n\n{machine_facts()}.\n"
    print(shown)
    if args.table:
        fill_table(args.table, shown, MARKERS)
    seconds = [Target(f"seconds: {one.task}", one.seconds, "<=", one.most) for one in measured]
    return judge([*quality_scores.targets(searched), *seconds])


def families(num_rows: int) -> Rows:
    """Unit rows float32 [num_rows, 512]; each ten that follow each other are near."""
    random = np.random.default_rng(SEED)
    centres = random.standard_normal((num_rows // FAMILY, DIM), dtype=np.float32)
    rows = np.repeat(centres, FAMILY, axis=0)
    rows += np.float32(0.3) * random.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def reranking(rows: Rows, share: int) -> Measured:
    """k-reciprocal re-ranking of lists that hold the query's family and others of the gallery."""
    num_queries = NUM_QUERIES // share
    listed = np.random.default_rng(SEED).integers(0, len(rows), (num_queries, NUM_LISTED))
    own = np.arange(num_queries)[:, None]
    listed[:, :FAMILY] = own // FAMILY * FAMILY + np.arange(FAMILY)
    seconds = _seconds(lambda: reranked_rows(rows[:num_queries], rows, listed))
    task = f"{NUM_QUERIES:,} lists of {NUM_LISTED} among {NUM_ROWS:,} re-ranked, k-reciprocal"
    return Measured(_scaled(task, num_queries, share), seconds * share, MAX_RERANK_SECONDS)


def duplicates(rows: Rows, share: int) -> Measured:
    """Near-duplicates grouped; `share` of all pairs are those of fewer rows, by its root."""
    num_rows = round(len(rows) / math.sqrt(share) / FAMILY) * FAMILY
    stored = rows[:num_rows].astype(np.float16)

    def group() -> None:
        components = Components(num_rows)
        for pairs in compared_pairs(np.arange(num_rows), lambda ids: unit(stored[ids]), 0.8):
            components.join(pairs.left, pairs.right)
        num_groups = len(components.groups())
        assert num_groups == num_rows // FAMILY, num_groups

    task = f"near-duplicates of {NUM_ROWS:,} vectors of {DIM} grouped"
    return Measured(_scaled(task, num_rows, share), _seconds(group) * share, MAX_DUPLICATES_SECONDS)


def _scaled(task: str, number: int, share: int) -> str:
    return task if share == 1 else f"{task} ({number:,} times {share})"


def _line(measured: Measured) -> str:
    return f"{measured.task}: {measured.seconds:.0f} s (at most {measured.most:g})."


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
