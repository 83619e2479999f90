"""Scores as a table to read, and as JSON to keep and to compare."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain.bootstrap import Estimate
from multigrain.embedder import Embedder
from multigrain.files import atomic_write_text
from trainer.evaluation.scores import Scores
from trainer.evaluation.sweeps import Curve
from trainer.protocols.test_set import PairSet, QuerySet

RESULTS, QUERIES, REPORT = "results.json", "queries.json", "report.html"


class Result(NamedTuple):
    """The scores of one test set; `name` precedes those of its metrics."""

    name: str
    protocol: str
    data: Path
    test_set: QuerySet | PairSet
    scores: Scores
    curves: Sequence[Curve] = ()

    def full_names(self) -> dict[str, Estimate]:
        """Scores by `name.metric`."""
        return {f"{self.name}.{metric}": score for metric, score in self.scores.metrics.items()}


def markdown(results: list[Result]) -> str:
    """One line a metric."""
    lines = [
        "| test set | metric | value | 95 % interval | queries | gallery |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {result.name} | {metric} | {score.value:.4f} | {score.interval.low:.4f} to "
        f"{score.interval.high:.4f} | {result.scores.num_queries} | {result.scores.num_gallery} |"
        for result in results
        for metric, score in result.scores.metrics.items()
    ]
    return "\n".join(lines)


def write_results(out: Path, results: list[Result], *, model: Mapping[str, Any]) -> None:
    """Write `results.json`, and `queries.json` with each query's name and values.

    `model` is what is said of what was scored. Raises OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write(out / RESULTS, {"model": model, "results": [_result(result) for result in results]})
    _write(out / QUERIES, {result.name: _queries(result) for result in results})


def describe(model: Embedder) -> dict[str, Any]:
    """What of a model changes its scores."""
    document = model.document
    pooling, whitening = document.pooling, document.embedding.whitening
    return {
        "fingerprint": model.fingerprint,
        "engine": model.engine,
        "precision": model.precision,
        "backbone": f"{document.backbone.library}:{document.backbone.name}",
        "dim": model.dim,
        "pooling": pooling.kind,
        "p": pooling.p_by_size.get(document.preprocessing.size, pooling.p),
        "whitening": whitening.model_dump(mode="json") if whitening else None,
        "preprocessing": document.preprocessing.model_dump(mode="json"),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "protocol": result.protocol,
        "data": str(result.data),
        "options": dict(result.test_set.options),
        "num_queries": result.scores.num_queries,
        "num_gallery": result.scores.num_gallery,
        "metrics": {
            name: {"value": score.value, "low": score.interval.low, "high": score.interval.high}
            for name, score in result.scores.metrics.items()
        },
        "curves": [curve._asdict() for curve in result.curves],
    }


def _queries(result: Result) -> dict[str, Any]:
    if isinstance(result.test_set, PairSet):
        return {"queries": [], "values": {}}
    pictures = result.test_set.pictures
    return {
        "queries": [str(pictures[number].path) for number in result.test_set.queries],
        "values": {
            name: [None if np.isnan(value) else round(float(value), 9) for value in values]
            for name, values in result.scores.per_query.items()
        },
    }


def _write(path: Path, document: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
