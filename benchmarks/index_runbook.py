"""A collection that changes for fifty rounds, beside a fresh build of what it then holds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import Views
from benchmarks.index_folders import Folder, folder_of
from benchmarks.index_search import K, exact_tenth, recall_of, search_of
from benchmarks.report import Target

ROUNDS = 50
FRESH_EVERY = 10
START_SHARE = 0.5  # of the rows are there before the first round
NPROBE, RERANK = 8, 20


class Round(NamedTuple):
    """Recall@10 of the updated index and of a fresh one, and codes kept for each live row."""

    number: int
    updated: float
    fresh: float
    codes_per_live: float


def measure(scratch: Path, views: Views) -> list[Round]:
    """Each round 2 % of the live rows leave and as many others come; the same search for both."""
    draw = np.random.default_rng(5)
    order = draw.permutation(len(views.rows))
    num_live = int(START_SHARE * len(order))
    live, waiting = list(order[:num_live]), list(order[num_live:])
    folder = folder_of(scratch / "updated", views.rows, order=np.array(live))
    names = {int(row): folder.photos / f"{place:08d}" for place, row in enumerate(live)}
    folder.build()
    rounds = list[Round]()
    for number in range(1, ROUNDS + 1):
        leaving = {int(row) for row in draw.choice(live, num_live // 50, replace=False)}
        coming, waiting = waiting[: len(leaving)], waiting[len(leaving) :] + sorted(leaving)
        for row in leaving:
            names.pop(row).unlink()
        for row in coming:
            names[int(row)] = folder.photos / f"round{number:02d}-{int(row):08d}"
            names[int(row)].write_bytes(views.rows[row].tobytes())
        live = [row for row in live if int(row) not in leaving] + coming
        folder.build()
        if number % FRESH_EVERY == 0:
            rounds.append(_compared(scratch / f"fresh-{number}", folder, views, live, number))
    return rounds


def _compared(scratch: Path, folder: Folder, views: Views, live: list[int], number: int) -> Round:
    rows = views.rows[np.array(live)]
    fresh = folder_of(scratch, rows, order=np.arange(len(rows)))
    fresh.build()
    least = exact_tenth(rows, views.queries)
    manifest = folder.manifest()
    codes = sum(part.num_codes for part in manifest.shards)
    return Round(
        number,
        _recall(folder, views.queries, least),
        _recall(fresh, views.queries, least),
        codes / manifest.counts.live,
    )


def _recall(folder: Folder, queries: NDArray[np.float32], least: NDArray[np.float32]) -> float:
    return recall_of(search_of(folder.ranker(), NPROBE, RERANK), queries, least)


def table(rounds: list[Round]) -> str:
    """Markdown of what was measured."""
    lines = ["| round | recall@10 updated | fresh | codes a live row |", "|---|---|---|---|"]
    lines += [
        f"| {one.number} | {one.updated:.4f} | {one.fresh:.4f} | {one.codes_per_live:.2f} |"
        for one in rounds
    ]
    return "\n".join(lines)


def targets(rounds: list[Round]) -> list[Target]:
    """The worst round decides."""
    gap = max(one.fresh - one.updated for one in rounds)
    codes = max(one.codes_per_live for one in rounds)
    return [
        Target(f"recall@{K} lost over {ROUNDS} rounds", gap, "<=", 0.01),
        Target(f"codes a live row over {ROUNDS} rounds", codes, "<=", 1.3),
    ]
