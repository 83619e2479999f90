"""Score a checkpoint on test sets: exact search, metrics named in full, bootstrap intervals.

python -m trainer.evaluate --checkpoint F --protocol manifest --data gallery.csv --out DIR
python -m trainer.evaluate --features F --protocol manifest --data gallery.csv --out DIR
torchrun --nproc-per-node 8 -m trainer.evaluate ...
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multigrain.config import ConfigError, did_you_mean
from multigrain.program import load_config, run_main
from trainer.settings_evaluate import EvaluateConfig
from trainer.speech import say, say_nothing

if TYPE_CHECKING:
    from multigrain.expectations import Expected
    from multigrain.ranking import Floats
    from trainer.engine.processes import Processes
    from trainer.evaluation.compared import Compared
    from trainer.evaluation.embeddings import Embeddings, ModelEmbeddings
    from trainer.evaluation.results import Result
    from trainer.evaluation.sweeps import Curve, Score
    from trainer.protocols.test_set import PairSet, Picture, QuerySet

    Given = tuple[str, str, Path, QuerySet | PairSet]

PROG = "python -m trainer.evaluate"
EXIT_LEFT = 1
# Options that say nothing of a list of pairs.
_OF_QUERIES = (
    "query_expansion",
    "gallery_expansion",
    "k_reciprocal",
    "background",
    "sizes",
    "exponents",
)


def evaluate(config: EvaluateConfig, processes: "Processes") -> list["Result"]:
    """Score the checkpoint, or the embeddings of a file, on every test set; write the results.

    All test sets are read before the first photo is embedded. Equal on every process.
    """
    from multigrain.files import atomic_write_text
    from trainer.evaluation.embeddings import ReadyMade
    from trainer.evaluation.report import report_page
    from trainer.evaluation.results import REPORT, write_results

    test_sets, others = read_test_sets(config), read_background(config)
    if config.out.exists() and not config.out.is_dir():
        raise ConfigError(f"--out {config.out} is a file: name a folder")
    tell = say if processes.is_first else say_nothing
    curves: dict[str, list[Curve]] = {name: [] for name, *_ in test_sets}
    embeddings: Embeddings
    if config.features:
        embeddings = ReadyMade(config.features)
    else:
        embeddings = embeddings_of(config, processes)
        curves |= sweeps(config, test_sets, embeddings)
    background = embeddings.of(others) if others else None
    results, sections = [], []
    for given in test_sets:
        tell(f"{given[0]}: {len(given[-1].pictures)} pictures")
        own = curves[given[0]]
        result, section = score(
            config, given, embeddings, processes, background=background, curves=own
        )
        results.append(result)
        sections.append(section)
    if processes.is_first:
        facts = {**embeddings.facts(), **_options(config)}
        write_results(config.out, results, model=facts)
        atomic_write_text(config.out / REPORT, report_page(facts, sections))
    return results


def score(
    config: EvaluateConfig,
    given: "Given",
    embeddings: "Embeddings",
    processes: "Processes",
    *,
    background: "Floats | None",
    curves: "list[Curve]",
) -> "tuple[Result, str]":
    """The scores of a test set, and its section of the report, which the first process makes."""
    from trainer.evaluation.report import pairs_section, result_section
    from trainer.evaluation.results import Result
    from trainer.evaluation.scores import pair_cosines, score_pairs, score_test_set
    from trainer.evaluation.sweeps import dimension_curve
    from trainer.protocols.test_set import PairSet

    name, protocol, data, test_set = given
    vectors = embeddings.of(test_set.pictures)
    if isinstance(test_set, PairSet):
        cosines = pair_cosines(test_set, vectors)
        of_pairs = score_pairs(test_set, cosines, seed=config.seed)
        result = Result(name, protocol, data, test_set, of_pairs)
        is_told = processes.is_first
        return result, pairs_section(result, cosines, test_set.same) if is_told else ""
    if embeddings.is_whitened:
        measure = first_score(config, processes)
        curves = [*curves, dimension_curve(test_set, vectors, measure)]
    rows = compare(config, test_set, vectors, processes)
    scores = score_test_set(
        test_set,
        rows,
        processes,
        background=background,
        num_reranked=config.k_reciprocal,
        seed=config.seed,
    )
    result = Result(name, protocol, data, test_set, scores, curves)
    if not processes.is_first:
        return result, ""
    return result, result_section(result, test_set, rows, seed=config.seed)


def embeddings_of(config: EvaluateConfig, processes: "Processes") -> "ModelEmbeddings":
    """The embeddings of the checkpoint's model, which are kept."""
    from multigrain.augmented import Augment
    from trainer.evaluation.embeddings import ModelEmbeddings
    from trainer.evaluation.models import Change, Models

    assert config.checkpoint is not None
    models = Models(
        config.checkpoint,
        config.cache or config.out / "embeddings",
        config.out,
        config.engine,
        config.precision,
        Augment(config.augment),
        processes,
        say if processes.is_first else say_nothing,
    )
    return ModelEmbeddings(models, models.open(Change(config.size, config.exponent)))


def sweeps(
    config: EvaluateConfig, test_sets: "list[Given]", embeddings: "ModelEmbeddings"
) -> "dict[str, list[Curve]]":
    """The curves of each test set by name, of the sizes and exponents that are to be tried."""
    from trainer.evaluation.models import Change
    from trainer.evaluation.sweeps import sweep
    from trainer.finishing.exponent_use import exponent_of
    from trainer.protocols.test_set import QuerySet

    models, document = embeddings.models, embeddings.embedder.document
    own = {"size": document.preprocessing.size, "exponent": exponent_of(document) or 0.0}
    changes = {
        "size": {float(size): Change(size, config.exponent) for size in config.sizes},
        "exponent": {p: Change(config.size, p) for p in config.exponents},
    }
    asked = {name: one for name, _, _, one in test_sets if isinstance(one, QuerySet)}
    score = first_score(config, models.processes)
    curves: dict[str, list[Curve]] = {name: [] for name in asked}
    for changed, values in changes.items():
        if values and asked:
            found = sweep(
                list(asked.values()), models, values, score, changed=changed, own=own[changed]
            )
            for name, curve in zip(asked, found, strict=True):
                curves[name].append(curve)
    return curves


def first_score(config: EvaluateConfig, processes: "Processes") -> "Score":
    """What gives a test set's first metric by the vectors [n, D] of its pictures."""
    from trainer.evaluation.scores import score_first

    def score(test_set: "QuerySet", vectors: "Floats") -> float:
        return score_first(test_set, compare(config, test_set, vectors, processes), processes)

    return score


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
        "k_reciprocal": config.k_reciprocal,
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


def read_test_sets(config: EvaluateConfig) -> "list[Given]":
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


def main() -> int:
    """Print the table of scores; exit status 1 when one is not as expected."""
    config = load_config(
        EvaluateConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from multigrain.expectations import read_beside, read_expectations
    from trainer.engine.processes import joined_processes, reported

    expected, beside = read_expectations(config.expect), read_beside(config.data)

    def among() -> int:
        with joined_processes(os.environ, device=config.device, num_threads=None) as processes:
            results = evaluate(config, processes)
            return judge(results, expected, beside) if processes.is_first else 0

    return reported(among, os.environ)


def judge(results: list["Result"], expected: "Expected", beside: "Mapping[Path, Expected]") -> int:
    """Print the scores, and those that are not as expected; return the exit status.

    What is expected `beside` a list is of its own scores alone.
    """
    from multigrain.expectations import left_intervals, resolve
    from trainer.evaluation.results import markdown

    print(markdown(results))
    scores = {name: score for result in results for name, score in result.full_names().items()}
    left = left_intervals(resolve(expected, scores), scores)
    for result in results:
        own = result.full_names()
        left += left_intervals(resolve(beside.get(result.data, {}), own), own)
    for line in left:
        print(f"{PROG}: {line}", file=sys.stderr)
    return EXIT_LEFT if left else 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
