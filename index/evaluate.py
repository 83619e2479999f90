"""`python -m index.evaluate`: what an index loses of its model's answers, and where."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, SecretStr

from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.files import atomic_write_text, write_via_temporary
from multigrain.locations import Location
from multigrain.program import load_config, run_main

if TYPE_CHECKING:
    from index.judging.losses import Line
    from multigrain.expectations import Expected

PROG = "index.evaluate"
EXIT_LEFT = 1
_SEED = 20190223

Part = tuple[str, "list[Line]"]


class EvaluateConfig(Config):
    """What is asked of which index."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    catalog: SecretStr | None = catalog_field()
    checkpoint: Path | None = Field(
        default=None, description="checkpoint file; unset: the one in the index folder"
    )
    queries: Path | None = Field(
        default=None,
        description="CSV or JSONL list of photos (path, instance), each asking for the photos of "
        "the index that were listed with the same instance; unset: edited copies of its photos",
    )
    num_queries: int = Field(default=500, ge=1, description="edited copies to ask with")
    num_photos: int = Field(
        default=200,
        ge=0,
        description="photos to try other pooling exponents on; each takes two passes of the trunk",
    )
    expect: dict[str, tuple[float, float]] | Path = Field(
        default={},
        description="YAML file of `line.metric: [low, high]`, such as `tuned.recall_at_1` (in a "
        "--config file the block itself); a metric outside ends the program with status 1, as one "
        "does that leaves its interval in LIST.expect.yaml beside the list of --queries",
    )
    json_: Path | None = Field(default=None, description="JSON file to write")
    html: Path | None = Field(
        default=None, description="HTML file to write, with intervals and the worst queries"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables of what is lost by lists, codes, dimensions, exponent; gives the status."""
    config = load_config(
        EvaluateConfig,
        prog=PROG,
        description="Say what an index loses, against exact search of its stored rows.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _evaluate(config), prog=PROG)


def _evaluate(config: EvaluateConfig) -> int:
    expected = expectations(config)
    found = evaluate(config)
    print("\n\n".join(_markdown(title, lines) for title, lines in found.parts))
    if config.json_:
        document = {title: [_line(line) for line in lines] for title, lines in found.parts}
        with write_via_temporary(config.json_) as temporary:
            temporary.write_text(json.dumps(document, indent=2))
    if config.html:
        atomic_write_text(config.html, found.page)
    return judge_lines(found.parts, expected)


def expectations(config: EvaluateConfig) -> "list[Expected]":
    """What is expected of the metrics: what was asked for, and what stands beside the queries."""
    from multigrain.expectations import read_beside, read_expectations

    beside = read_beside([config.queries] if config.queries else [])
    return [read_expectations(config.expect), *beside.values()]


def judge_lines(parts: Sequence[Part], expected: "Sequence[Expected]") -> int:
    """Print the metrics that are not as expected; return the exit status."""
    from multigrain.expectations import left_intervals, resolve

    scores = {
        f"{line.key}.{name}": estimate
        for _, lines in parts
        for line in lines
        for name, estimate in line.judged.estimates().items()
    }
    left = [line for block in expected for line in left_intervals(resolve(block, scores), scores)]
    for line in left:
        print(f"{PROG}: {line}", file=sys.stderr)
    return EXIT_LEFT if left else 0


class Evaluated(NamedTuple):
    """Tables by their titles, and the page of them."""

    parts: list[Part]
    page: str


def evaluate(config: EvaluateConfig) -> Evaluated:
    """Measure an index; each table has what it is measured against in its first line."""
    # Here, so that --help does not wait for torch.
    import numpy as np

    from index.judging.exponents import exponent_lines
    from index.judging.losses import dimension_lines, search_lines
    from index.judging.questions import listed_questions, view_questions
    from index.judging.report import losses_page, worst_queries
    from index.replica.source import IndexSource
    from index.searcher import Searcher
    from multigrain.cpus import num_cpus
    from multigrain.embedder import Embedder

    threads = num_cpus()
    source = IndexSource(config.index, cache_dir=config.cache_dir)
    with closing(source.open(partial(Searcher.open, catalog=config.catalog))) as searcher:
        checkpoint = config.checkpoint or searcher.checkpoint_path
        embedder = Embedder.open(checkpoint, device=config.device)
        searcher.require_model(embedder)
        if config.queries:
            asked = listed_questions(config.queries, searcher, embedder, num_threads=threads)
        else:
            asked = view_questions(
                searcher, embedder, num_queries=config.num_queries, num_threads=threads
            )
        parts: list[Part] = [(f"Lists and codes, {len(asked.answers)} queries", [])]
        parts[0][1].extend(search_lines(searcher, asked))
        if embedder.document.embedding.whitening is not None:
            parts.append(("Dimensions of the whitening", list(dimension_lines(searcher, asked))))
        drawn = np.random.default_rng(_SEED).permutation(searcher.present.live_ids)
        ids = drawn[: config.num_photos].tolist()
        lines = list(exponent_lines(checkpoint, embedder, searcher.read_photo, ids)) if ids else []
        if lines:
            parts.append((f"Pooling exponent, {len(ids)} photos, without whitening", lines))
        worst = worst_queries(searcher, asked, parts[0][1][-1]) if config.html else ""
        facts = {
            "index": config.index,
            "generation": searcher.generation,
            "photos": f"{searcher.num_live:,}",
            "string": searcher.manifest.factory,
            "checkpoint": searcher.fingerprint[:12],
            "dimensions": searcher.dim,
        }
        return Evaluated(parts, losses_page(facts, parts, worst))


def _line(line: "Line") -> dict[str, Any]:
    intervals = {
        f"{name}_interval": list(one.interval) for name, one in line.judged.estimates().items()
    }
    named = {"key": line.key, "name": line.name, "milliseconds": line.milliseconds}
    return line.score._asdict() | intervals | named


def _markdown(title: str, lines: "Sequence[Line]") -> str:
    rows = [
        f"## {title}",
        "",
        "| | of the ten nearest | recall@1 | AP of ten | ms a query |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        time = "" if line.milliseconds is None else f"{line.milliseconds:.2f}"
        agreement, first, ap = line.score
        rows.append(f"| {line.name} | {agreement:.3f} | {first:.3f} | {ap:.3f} | {time} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
