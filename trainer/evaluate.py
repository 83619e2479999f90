"""Score a checkpoint on test sets: exact search, metrics named in full, bootstrap intervals.

python -m trainer.evaluate --checkpoint F --protocol manifest --data gallery.csv --out DIR
torchrun --nproc-per-node 8 -m trainer.evaluate ...
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from multigrain.config import Config, ConfigError, did_you_mean
from multigrain.program import load_config, run_main
from trainer.speech import say, say_nothing

if TYPE_CHECKING:
    from multigrain.embedder import Embedder
    from multigrain.ranking import Floats
    from trainer.engine.processes import Processes
    from trainer.evaluation.compared import Compared
    from trainer.evaluation.expectations import Expected
    from trainer.evaluation.results import Result
    from trainer.protocols.test_set import PairSet, Picture, QuerySet

PROG = "python -m trainer.evaluate"
EXIT_LEFT = 1
# Options that say nothing of a list of pairs.
_OF_QUERIES = ("query_expansion", "gallery_expansion", "background")


class EvaluateConfig(Config):
    """Flags of the evaluation."""

    checkpoint: Path = Field(description="checkpoint file to score")
    protocol: list[str] = Field(
        min_length=1,
        description="test set's protocol, see docs/evaluation.md; repeatable, one for each --data",
    )
    data: list[Path] = Field(
        min_length=1, description="the test set's folder, or its list; repeatable"
    )
    out: Path = Field(description="folder for results.json, queries.json and report.html")
    expect: dict[str, tuple[float, float]] | Path = Field(
        default={},
        description="YAML file of `metric: [low, high]` (in a --config file the block itself); "
        "a metric outside ends the program with status 1",
    )
    upright: Path | None = Field(
        default=None,
        description="table of `name,quarter turns clockwise` for holidays, beside EXIF",
    )
    cache: Path | None = Field(
        default=None, description="folder of known embeddings; unset: embeddings, in --out"
    )
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"] = Field(
        default="none",
        description="what else of each photo to embed with it, as one vector: its mirror image, "
        "the photo at half and twice the area, or both",
    )
    query_expansion: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="move each query towards so many of its nearest and search again (alpha-QE)",
    )
    gallery_expansion: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="move each photo of the gallery towards so many of its nearest before (DBA)",
    )
    background: Path | None = Field(
        default=None,
        description="folder or list of photos that answer nothing: pooled pairs are also scored "
        "less how near the query is to these, and what that gains is told",
    )
    seed: int = Field(default=0, ge=0, description="of the bootstrap's draws")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where photos are embedded and compared"
    )
    engine: Literal["auto", "openvino", "torch"] = Field(
        default="auto", description="what computes the model on a CPU"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="of the model; scores are compared in fp32"
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.protocol) != len(self.data):
            raise ValueError(
                f"{len(self.protocol)} --protocol and {len(self.data)} --data: give one for each"
            )
        return self


def evaluate(config: EvaluateConfig, processes: "Processes") -> list["Result"]:
    """Score the checkpoint on every test set and write the results.

    All test sets are read before the first photo is embedded. Equal on every process.
    """
    from multigrain.files import atomic_write_text
    from trainer.evaluation.report import report_page, result_section
    from trainer.evaluation.results import REPORT, Result, describe, write_results
    from trainer.evaluation.scores import score_pairs, score_test_set
    from trainer.protocols.test_set import PairSet

    test_sets, others = read_test_sets(config), read_background(config)
    embedder = open_embedder(config, processes)
    speak = say if processes.is_first else say_nothing
    background = embed(config, others, embedder, processes) if others else None
    results, sections = [], []
    for name, protocol, data, test_set in test_sets:
        speak(f"{name}: {len(test_set.pictures)} pictures")
        vectors = embed(config, test_set.pictures, embedder, processes)
        if isinstance(test_set, PairSet):
            rows, scores = None, score_pairs(test_set, vectors, seed=config.seed)
        else:
            rows = compare(config, test_set, vectors, processes)
            scores = score_test_set(
                test_set, rows, processes, background=background, seed=config.seed
            )
        results.append(Result(name, protocol, data, test_set, scores))
        if processes.is_first:
            sections.append(result_section(results[-1], rows, seed=config.seed))
    if processes.is_first:
        facts = {"checkpoint": str(config.checkpoint), **describe(embedder), **_options(config)}
        write_results(config.out, results, model=facts)
        atomic_write_text(config.out / REPORT, report_page(facts, sections))
    return results


def embed(
    config: EvaluateConfig,
    pictures: "Sequence[Picture]",
    embedder: "Embedder",
    processes: "Processes",
) -> "Floats":
    """Unit rows of the pictures [n, D], those of earlier runs from the cache."""
    from multigrain.augmented import Augment
    from trainer.evaluation.embed_pictures import embed_pictures
    from trainer.evaluation.embedding_cache import EmbeddingCache

    model = f"{embedder.fingerprint[:16]}-{embedder.engine}-{embedder.precision}"
    folder = (config.cache or config.out / "embeddings") / model
    return embed_pictures(
        pictures,
        embedder,
        EmbeddingCache.open(folder, dim=embedder.dim),
        processes,
        augment=Augment(config.augment),
        say=say if processes.is_first else say_nothing,
    )


def compare(
    config: EvaluateConfig, test_set: "QuerySet", vectors: "Floats", processes: "Processes"
) -> "Compared":
    """The rows of vectors [n, D] that are compared, expanded where that is asked."""
    from trainer.evaluation.compared import compared_rows

    return compared_rows(
        test_set,
        vectors,
        processes,
        query_expansion=config.query_expansion,
        gallery_expansion=config.gallery_expansion,
    )


def _options(config: EvaluateConfig) -> dict[str, Any]:
    """What was done to the embeddings, as the results state it."""
    return {
        "augment": config.augment,
        "query_expansion": config.query_expansion,
        "gallery_expansion": config.gallery_expansion,
        "background": config.background and str(config.background),
    }


def read_background(config: EvaluateConfig) -> "list[Picture]":
    """The pictures of the background; raises ConfigError for a folder or list without any."""
    from trainer.inputs.photos import paths_of
    from trainer.protocols.test_set import Picture

    if config.background is None:
        return []
    if not config.background.exists():
        raise ConfigError(f"--background {config.background}: no such folder or list")
    found = [Picture(path) for path in paths_of(config.background)]
    if not found:
        raise ConfigError(f"--background {config.background}: there is no photo in it")
    return found


def read_test_sets(
    config: EvaluateConfig,
) -> list[tuple[str, str, Path, "QuerySet | PairSet"]]:
    """Name, protocol, data and test set of each; the second of a protocol is named NAME-2."""
    from trainer.protocols.registry import PROTOCOLS
    from trainer.protocols.test_set import PairSet, Request

    unknown = [name for name in config.protocol if name not in PROTOCOLS]
    if unknown:
        hint = did_you_mean(unknown[0], list(PROTOCOLS))
        raise ConfigError(f"no protocol {unknown[0]!r}{hint}: choose of {', '.join(PROTOCOLS)}")
    found, times = [], dict[str, int]()
    for protocol, data in zip(config.protocol, config.data, strict=True):
        times[protocol] = times.get(protocol, 0) + 1
        name = protocol if times[protocol] == 1 else f"{protocol}-{times[protocol]}"
        test_set = PROTOCOLS[protocol](Request(data, config.upright))
        found.append((name, protocol, data, test_set))
    idle = [name for name in _OF_QUERIES if getattr(config, name)]
    if idle and all(isinstance(test_set, PairSet) for *_, test_set in found):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ConfigError(f"{flags}: not for pairs, of which alone the test sets are made")
    return found


def open_embedder(config: EvaluateConfig, processes: "Processes") -> "Embedder":
    """Open the checkpoint; all processes take the engine that the first one has chosen."""
    import torch

    from multigrain.embedder import Embedder

    def opened(engine: str) -> Embedder:
        return Embedder.open(
            config.checkpoint,
            device=str(processes.device),
            engine=engine,
            precision=config.precision,
            num_threads=torch.get_num_threads(),
        )

    if processes.is_first:
        embedder = opened(config.engine)
        processes.gather(embedder.engine)
        return embedder
    chosen = processes.gather("")[0]
    return opened(chosen if processes.device.type == "cpu" else "torch")


def main() -> int:
    """Print the table of scores; exit status 1 when one is not as expected."""
    config = load_config(
        EvaluateConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from trainer.engine.processes import joined_processes, reported
    from trainer.evaluation.expectations import read_expectations

    expected = read_expectations(config.expect)

    def among() -> int:
        with joined_processes(os.environ, device=config.device, num_threads=None) as processes:
            results = evaluate(config, processes)
            return judge(results, expected) if processes.is_first else 0

    return reported(among, os.environ)


def judge(results: list["Result"], expected: "Expected") -> int:
    """Print the scores, and those that are not as expected; return the exit status."""
    from trainer.evaluation.expectations import left_intervals, resolve
    from trainer.evaluation.results import markdown

    print(markdown(results))
    scores = {name: score for result in results for name, score in result.full_names().items()}
    left = left_intervals(resolve(expected, scores), scores)
    for line in left:
        print(f"{PROG}: {line}", file=sys.stderr)
    return EXIT_LEFT if left else 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
