"""What each step towards better answers is worth, on real photos, each with its interval.

    python -m benchmarks.quality_steps --data DATA --out WORK [--table docs/quality.md] [--full]

From the plain trunk to GeM, test size and exponent, whitening and its dimensions, mirrored and
scaled looks, query expansion, database augmentation and re-ranking. Vectors are kept in WORK, so
a second run is quick. Exits with 1 when a target is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality import TRUNKS, WHITEN_POWER, Trunk, fill_table
from benchmarks.quality_orders import Order, augmentation, by_cosine, expansion, reciprocity
from benchmarks.quality_tasks import Task, read_tasks
from benchmarks.quality_vectors import Look, Rows, Vectors
from benchmarks.report import Target, judge, machine_facts
from index.searching.reranking import NUM_EXPANDING, NUM_RECIPROCAL
from multigrain.augmented import MULTI_SCALE, mean_embedding, scaled
from multigrain.bootstrap import Values, mean_interval, paired_difference
from multigrain.metrics import positive_ranks
from multigrain.rank_metrics import RankTable, ap
from multigrain.reciprocal import DEFAULT_NEIGHBOURHOOD
from multigrain.transforms import Preprocessing
from multigrain.whitening import Moments, Whitening, fit_whitening

MARKERS = ("<!-- steps -->\n", "<!-- end of steps -->")
BASE = Look()
SEED = 20190218
QUICK_TRUNK = "squeezenet1_1"
# What a default must keep to stay one, in points of AP above the step it is measured from.
MIN_GAIN = 0.0


class Step(NamedTuple):
    """A line of the table: AP of every query of each task; `against` is the line it adds to."""

    name: str
    ap: dict[str, Values]
    against: str


class Asked(NamedTuple):
    """A query: its place among the photos, its gallery's [N], and which of those are right [N]."""

    place: int
    gallery: NDArray[np.int64]
    relevant: NDArray[np.bool_]


class Photos(NamedTuple):
    """Every photo once, the places that whitening is fitted on, and every task's queries."""

    paths: list[Path]
    fitted: list[int]
    asked: dict[str, list[Asked]]


def main(argv: Sequence[str]) -> int:
    """Measure every step; print, fill the table and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="work folder, kept")
    parser.add_argument("--table", type=Path, help="document whose table is replaced")
    parser.add_argument("--full", action="store_true", help="both trunks, every size and constant")
    args = parser.parse_args(argv)
    start, data = time.monotonic(), args.data.resolve()
    photos = _photos(read_tasks(data), data)
    text, targets = [], list[Target]()
    for trunk in TRUNKS:
        if args.full or trunk.backbone == QUICK_TRUNK:
            steps = list(measure(trunk, photos, data, args.out, full=args.full))
            text.append(markdown(trunk, steps))
            targets += _targets(trunk, steps)
    footnote = f"{machine_facts()}; {time.monotonic() - start:.0f} s"
    print(shown := "\n\n".join([*text, footnote]) + "\n")
    if args.table:
        fill_table(args.table, shown, MARKERS)
    return judge(targets)


def _photos(tasks: Sequence[Task], data: Path) -> Photos:
    paths = [path for task in tasks for path in task.gallery]
    paths += [query.photo for task in tasks for query in task.queries]
    fitted = sorted((data / "classes" / "train").rglob("*.jpg"))
    places = {path: place for place, path in enumerate(dict.fromkeys([*paths, *fitted]))}
    asked = {task.name: list(_asked(task, places)) for task in tasks}
    return Photos(list(places), [places[path] for path in fitted], asked)


def _asked(task: Task, places: dict[Path, int]) -> Iterator[Asked]:
    """A query's junk is not in the gallery it is asked of."""
    for query in task.queries:
        kept = [path for path in task.gallery if path not in query.junk]
        relevant = np.array([path in query.relevant for path in kept])
        yield Asked(places[query.photo], np.array([places[path] for path in kept]), relevant)


def measure(trunk: Trunk, photos: Photos, data: Path, out: Path, *, full: bool) -> Iterator[Step]:
    """The steps of one trunk."""
    num_fitted = len(photos.fitted)
    vectors = Vectors(photos.paths, trunk, data, out / "vectors", num_fitted=num_fitted)

    def step(
        name: str, rows: Rows, against: str, order: Order = by_cosine, asked: Rows | None = None
    ) -> Step:
        queries = rows if asked is None else asked
        found = {task: _scores(rows, queries, own, order) for task, own in photos.asked.items()}
        return Step(name, found, against)

    plain, gem = "plain: average pooling, 224 px crop", f"GeM p 3, whole photo, {BASE.size} px"
    yield step(plain, vectors.of(Look(p=1.0, size=224, crop=True)), "")
    base = vectors.of(BASE)
    yield step(gem, base, plain)
    for look in _looks(full=full):
        yield step(f"p {look.p:g}, {look.size} px", vectors.of(look), gem)
    dims = base.shape[1]
    for dim in (dims, dims // 2, dims // 4, dims // 8):
        yield step(f"whitened to {dim}", _through(_fitted(base[photos.fitted], dim), base), gem)
    white, whitening = (
        f"whitened to {trunk.whiten_dim}",
        _fitted(base[photos.fitted], trunk.whiten_dim),
    )
    rows = _through(whitening, base)[: len(base) - num_fitted]
    for name, looks in _several(full=full):
        parts = [_through(whitening, vectors.of(look)[: len(rows)]) for look in looks]
        several = mean_embedding(np.stack(parts))
        yield step(f"+ {name}", several, white)
        yield step(f"+ {name} of the query alone", rows, white, asked=several)
    yield from _reranked(step, rows, white, full=full)


def _looks(*, full: bool) -> list[Look]:
    """Exponents and sizes beside the base: no target asks for them, so a quick run has none."""
    if not full:
        return []
    return [Look(p=p) for p in (1.0, 2.0, 4.0)] + [Look(size=size) for size in (161, 257, 321)]


def _several(*, full: bool) -> Iterator[tuple[str, list[Look]]]:
    rule = Preprocessing(size=BASE.size)
    scales = [Look(size=scaled(rule, scale).size) for scale in MULTI_SCALE]
    flipped = [look._replace(mirror=True) for look in scales]
    yield "flip", [BASE, BASE._replace(mirror=True)]
    if full:
        sizes = ", ".join(str(look.size) for look in scales)
        yield f"three sizes ({sizes})", scales
        yield "three sizes and flip", scales + flipped


def _reranked(step: Callable[..., Step], rows: Rows, against: str, *, full: bool) -> Iterator[Step]:
    for num in (3, 5, 10) if full else (NUM_EXPANDING,):
        yield step(f"+ query expansion, {num} nearest", rows, against, expansion(num))
    for weight in (0.1, 0.3, 0.5) if full else (DEFAULT_NEIGHBOURHOOD.own_weight,):
        order = reciprocity(NUM_RECIPROCAL, weight)
        name = f"+ k-reciprocal of {NUM_RECIPROCAL}, cosine weight {weight:g}"
        yield step(name, rows, against, order)
    if full:
        yield step("+ database augmentation, 5 nearest", rows, against, augmentation(5))


def _scores(rows: Rows, queries: Rows, asked: Sequence[Asked], order: Order) -> Values:
    """AP (rectangular) of every query, whose row is among `queries`, its gallery's among `rows`."""
    ranks, num_positives = [], []
    for one in asked:
        ranked = order(queries[one.place], rows[one.gallery])
        scores = np.empty(len(ranked))
        scores[ranked] = -np.arange(len(ranked))
        ranks.append(positive_ranks(scores, one.relevant, np.zeros(len(ranked), bool)))
        num_positives.append(int(one.relevant.sum()))
    return ap(RankTable.of(ranks, num_positives))


def _fitted(rows: Rows, dim: int) -> Whitening:
    moments = Moments(rows.shape[1])
    moments.update(torch.from_numpy(rows))
    return fit_whitening(moments, dim=dim, power=WHITEN_POWER)


def _through(whitening: Whitening, rows: Rows) -> Rows:
    with torch.inference_mode():
        return whitening(torch.from_numpy(rows)).numpy()


def markdown(trunk: Trunk, steps: Sequence[Step]) -> str:
    """A table: AP and its 95 % interval; an asterisk where it differs from what it adds to."""
    by, tasks = {step.name: step for step in steps}, list(steps[0].ap)
    lines = [f"| {trunk.backbone} | {' | '.join(tasks)} |", "|---" * (1 + len(tasks)) + "|"]
    for step in steps:
        cells = [
            _cell(step.ap[task], by[step.against].ap[task] if step.against else None)
            for task in tasks
        ]
        lines.append(f"| {step.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Values, against: Values | None) -> str:
    low, high = mean_interval(values, seed=SEED)
    differs = against is not None and not paired_difference(against, values, seed=SEED).is_noise
    return f"{values.mean():.3f}{'*' if differs else ''} ({low:.3f} to {high:.3f})"


def _targets(trunk: Trunk, steps: Sequence[Step]) -> Iterator[Target]:
    """What is done unasked must earn its place: over all tests, and most on copies."""
    by = {step.name: _mean(step) for step in steps}
    plain, gem, white = by[steps[0].name], by[steps[1].name], by[f"whitened to {trunk.whiten_dim}"]
    name = f"{trunk.backbone}: AP of"
    yield Target(f"{name} GeM above plain, mean of tests", gem - plain, ">=", MIN_GAIN)
    yield Target(f"{name} whitening above GeM, mean of tests", white - gem, ">=", MIN_GAIN)


def _mean(step: Step) -> float:
    return float(np.mean([values.mean() for values in step.ap.values()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
