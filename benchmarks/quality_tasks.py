"""The retrieval tests over real photos: queries, what answers them, and the gallery."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Query(NamedTuple):
    """A photo asked for, those that answer it, and those that do not count."""

    photo: Path
    relevant: frozenset[Path]
    junk: frozenset[Path]


class Task(NamedTuple):
    """Queries against a gallery; `collections` are added to the index folder `index`."""

    name: str
    queries: list[Query]
    gallery: list[Path]
    index: str
    collections: list[Path]


def read_tasks(data: Path) -> list[Task]:
    """The three tests of the data's own README."""
    instances, copies, classes = data / "instances", data / "copies", data / "classes"
    distractors = listed(instances / "gallery.csv")
    originals = sorted((copies / "originals").iterdir())
    return [
        Task(
            name="instances",
            queries=read_queries(instances / "queries.jsonl"),
            gallery=distractors,
            index="things",
            collections=[instances / "gallery.csv"],
        ),
        Task(  # the same index, updated
            name="copies",
            queries=read_queries(copies / "queries.jsonl"),
            gallery=originals + distractors,
            index="things",
            collections=[copies / "originals"],
        ),
        Task(
            name="classes, iconic",
            queries=read_queries(classes / "queries_iconic.jsonl"),
            gallery=listed(classes / "gallery.csv"),
            index="groceries",
            collections=[classes / "gallery.csv"],
        ),
    ]


def read_queries(path: Path) -> list[Query]:
    """Queries of a JSONL file, their paths relative to it."""

    def below(names: Sequence[str]) -> frozenset[Path]:
        return frozenset(path.parent / name for name in names)

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Query(path.parent / row["query"], below(row["relevant"]), below(row.get("junk", [])))
        for row in rows
    ]


def listed(path: Path) -> list[Path]:
    """Paths of a CSV list whose first column is `path`."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("path,"), lines[0]
    return [path.parent / line.split(",")[0] for line in lines[1:]]
