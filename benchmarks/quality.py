"""Retrieval quality on real photos: plain trunk against ours, exact search against the index.

    python -m benchmarks.quality --data DATA --out WORK [--table docs/quality.md] [--full]

DATA holds `instances`, `copies`, `classes` and `weights` (see docs/quality.md). Every score is
named; a non-finite vector is refused, and ties count against the model. Exits with 1 when a
target is missed.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.mean_scores import Scores, mean_scores
from benchmarks.quality_tasks import Task, read_tasks
from benchmarks.report import Target, judge, machine_facts
from index.build import main as build_index
from index.searcher import Searcher
from multigrain.embedder import Embedder
from multigrain.metrics import positive_ranks
from multigrain.ranking import exact_search
from trainer.pretrained import PretrainedConfig, make_pretrained

# What must not be lost again; set a little below what this benchmark measured.
MIN_INSTANCE_AP = {"mobilenet_v2": 0.90, "squeezenet1_1": 0.88}
MIN_COPY_GAIN = 0.10
MIN_MEAN_GAIN = 0.0
MAX_INDEX_LOSS = 0.01
MAX_BF16_LOSS = 0.01

PLAIN = "plain: average pooling, 224 px centre crop"
GEM = "GeM p 3, whole photo at 225 px"
WHITENED = "ours: the same, whitened to half"
BF16 = "exact, bf16"
BF16_TRUNK = "squeezenet1_1"  # the small one: where bf16 is emulated it takes a minute
# Sides of 32k + 1 agree with the padding the weights were trained with.
SIZE = 225
P = 3.0
# The photos are few and all of groceries: full whitening would blow up what they show badly.
WHITEN_POWER = 0.25

MARKERS = ("<!-- table -->\n", "<!-- end of table -->")


class Trunk(NamedTuple):
    """A pretrained trunk, its weights below DATA, and what ours does with it."""

    backbone: str
    weights: str
    licence: str
    whiten_dim: int


class Row(NamedTuple):
    """One line of the table."""

    trunk: str
    model: str
    task: str
    search: str
    scores: Scores


TRUNKS = (
    Trunk("mobilenet_v2", "weights/mobilenet_v2_imagenet_dequant.pth", "Apache-2.0", 640),
    Trunk("squeezenet1_1", "weights/squeezenet1_1_imagenet_features.pth", "MIT", 256),
)


def main(argv: Sequence[str]) -> int:
    """Measure every trunk, model, task and search; print and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="work folder, emptied first")
    parser.add_argument("--table", type=Path, help="document whose table is replaced")
    parser.add_argument(
        "--full", action="store_true", help="GeM alone and an index of the plain trunk, too"
    )
    args = parser.parse_args(argv)
    start = time.monotonic()
    shutil.rmtree(args.out, ignore_errors=True)  # an index of an earlier run would be updated
    data = args.data.resolve()  # as the index names its files
    tasks = read_tasks(data)
    rows = [
        row
        for trunk in TRUNKS
        for row in measure_trunk(trunk, tasks, data, args.out, full=args.full)
    ]
    text = f"{markdown(rows)}\n\n{machine_facts()}; {time.monotonic() - start:.0f} s in all.\n"
    print(text)
    if args.table:
        fill_table(args.table, text)
    return judge(targets(rows))


def measure_trunk(
    trunk: Trunk, tasks: list[Task], data: Path, out: Path, *, full: bool
) -> Iterator[Row]:
    """Rows of the plain trunk and of ours."""
    weights = {
        "backbone": trunk.backbone,
        "weights": str(data / trunk.weights),
        "weights_licence": trunk.licence,
    }
    models = {
        PLAIN: PretrainedConfig(
            **weights, out=out / f"{trunk.backbone}-plain.safetensors", rule="crop", p=1.0
        ),
        GEM: PretrainedConfig(
            **weights, out=out / f"{trunk.backbone}-gem.safetensors", size=SIZE, p=P
        ),
        WHITENED: PretrainedConfig(
            **weights,
            out=out / f"{trunk.backbone}-ours.safetensors",
            size=SIZE,
            p=P,
            whiten=[data / "classes" / "train"],
            whiten_dim=trunk.whiten_dim,
            whiten_power=WHITEN_POWER,
        ),
    }
    if not full:
        del models[GEM]  # no target asks for it, and benchmarks.quality_steps measures it, too
    for name, config in models.items():
        checkpoint = make_pretrained(config)
        vectors = embed_once(Embedder.open(checkpoint), tasks)
        for task in tasks:
            queries = np.stack([vectors[query.photo] for query in task.queries])
            gallery = np.stack([vectors[path] for path in task.gallery])
            scores = score_exact(queries, gallery, task)
            yield Row(trunk.backbone, name, task.name, "exact", scores)
            if name == WHITENED or (full and name == PLAIN):
                root = build(checkpoint, task, out)
                scores = score_index(queries, root, task)
                yield Row(trunk.backbone, name, task.name, "index", scores)
        if name == WHITENED and trunk.backbone == BF16_TRUNK:
            yield measure_bf16(checkpoint, trunk, tasks[0])


def measure_bf16(checkpoint: Path, trunk: Trunk, task: Task) -> Row:
    """The first test once more, with a trunk that computes in bf16 on the faster engine."""
    vectors = embed_once(Embedder.open(checkpoint, precision="bf16"), [task])
    queries = np.stack([vectors[query.photo] for query in task.queries])
    gallery = np.stack([vectors[path] for path in task.gallery])
    return Row(trunk.backbone, WHITENED, task.name, BF16, score_exact(queries, gallery, task))


def embed_once(embedder: Embedder, tasks: list[Task]) -> dict[Path, npt.NDArray[np.float32]]:
    """The vector of every photo that any task asks for or searches."""
    wanted = [path for task in tasks for path in task.gallery]
    wanted += [query.photo for task in tasks for query in task.queries]
    paths = list(dict.fromkeys(wanted))
    return dict(zip(paths, embedder.embed(paths), strict=True))


def build(checkpoint: Path, task: Task, out: Path) -> Path:
    """The index of a task's gallery, made or updated by the command a user types."""
    root = out / f"{checkpoint.stem}-{task.index}"
    photos = [flag for path in task.collections for flag in ("--photos", str(path))]
    status = build_index([*photos, "--checkpoint", str(checkpoint), "--out", str(root)])
    assert status == 0, f"index.build exited with {status}"
    return root


def score_exact(
    queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32], task: Task
) -> Scores:
    """Scores of a full exact ranking."""
    ranking = exact_search(queries, gallery, len(gallery))
    found = [
        (scores, [task.gallery[row] for row in rows])
        for scores, rows in zip(ranking.scores, ranking.rows, strict=True)
    ]
    return score(found, task)


def score_index(queries: npt.NDArray[np.float32], root: Path, task: Task) -> Scores:
    """Scores of what the built index returns, asked for as much as it holds."""
    searcher = Searcher.open(root)
    answers = searcher.search(queries, searcher.num_live)
    found_ids = {neighbour.id for answer in answers for neighbour in answer}
    paths = {row_id: searcher.photo_path(row_id) for row_id in found_ids}
    searcher.close()
    found = [
        (np.array([n.score for n in answer]), [paths[n.id] for n in answer]) for answer in answers
    ]
    return score(found, task)


def score(
    found: Sequence[tuple[npt.NDArray[np.floating], Sequence[Path | None]]], task: Task
) -> Scores:
    """Means over the queries of a task; a positive that was not found counts as missed."""
    ranks, num_positives = [], []
    for query, (scores, paths) in zip(task.queries, found, strict=True):
        relevant = np.array([path in query.relevant for path in paths], bool)
        junk = np.array([path in query.junk for path in paths], bool)
        ranks.append(positive_ranks(scores, relevant, junk))
        num_positives.append(len(query.relevant - query.junk))
    return mean_scores(ranks, num_positives)


def targets(rows: list[Row]) -> Iterator[Target]:
    """What must hold of the table."""
    by = {(row.trunk, row.task, row.search, row.model): row.scores.ap for row in rows}
    for (trunk, task, search, model), ap in by.items():
        exact = by[trunk, task, "exact", model]
        if search == "index":
            loss = abs(exact - ap)
            name = f"{trunk}, {task}, {model}: AP lost by the index"
            yield Target(name, loss, "<=", MAX_INDEX_LOSS)
        elif search == BF16:
            name = f"{trunk}, {task}: AP that bf16 changes"
            yield Target(name, abs(exact - ap), "<=", MAX_BF16_LOSS)
    for trunk, wanted in MIN_INSTANCE_AP.items():
        gains = {
            task: by[trunk, task, "exact", WHITENED] - by[trunk, task, "exact", PLAIN]
            for task in dict.fromkeys(row.task for row in rows)
        }
        mean = sum(gains.values()) / len(gains)
        yield Target(f"{trunk}: AP above plain, mean of tests", mean, ">=", MIN_MEAN_GAIN)
        yield Target(f"{trunk}, copies: AP above plain", gains["copies"], ">=", MIN_COPY_GAIN)
        measured = by[trunk, "instances", "exact", WHITENED]
        yield Target(f"{trunk}, instances: AP", measured, ">=", wanted)


def markdown(rows: list[Row]) -> str:
    """The table, one line a row."""
    lines = [
        "| trunk | model | test | search | recall@1 | recall@5 | AP rect. | AP trap. | queries |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.trunk} | {row.model} | {row.task} | {row.search} | {row.scores.recall_at_1:.3f} "
        f"| {row.scores.recall_at_5:.3f} | {row.scores.ap:.3f} | {row.scores.ap_trapezoid:.3f} "
        f"| {row.scores.num_queries} |"
        for row in rows
    ]
    return "\n".join(lines)


def fill_table(path: Path, text: str, markers: tuple[str, str] = MARKERS) -> None:
    """Replace what stands between the markers of a document."""
    begin, end = markers
    before, rest = path.read_text().split(begin)
    path.write_text(f"{before}{begin}{text}{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
