"""An evaluation from its settings to its results: test sets, embeddings, scores, report.

n pictures, D embedding, M of the background.
"""

from typing import Any

from multigrain.augmented import Augment
from multigrain.config import ConfigError
from multigrain.files import atomic_write_text
from multigrain.ranking import Floats
from trainer.engine.processes import Processes
from trainer.evaluation.asked import Given, read_background, read_test_sets
from trainer.evaluation.compared import Compared, compared_rows
from trainer.evaluation.embeddings import Embeddings, ModelEmbeddings, ReadyMade
from trainer.evaluation.models import Change, Models
from trainer.evaluation.report import pairs_section, report_page, result_section
from trainer.evaluation.results import REPORT, Result, write_results
from trainer.evaluation.scores import pair_cosines, score_first, score_pairs, score_test_set
from trainer.evaluation.sweeps import Curve, Score, dimension_curve, sweep
from trainer.finishing.exponent_use import exponent_of
from trainer.protocols.test_set import PairSet, QuerySet
from trainer.settings_evaluate import EvaluateConfig
from trainer.speech import say, say_nothing


def evaluate(config: EvaluateConfig, processes: Processes) -> list[Result]:
    """Score the checkpoint, or the embeddings of a file, on every test set; write the results.

    All test sets are read before the first photo is embedded. Equal on every process.
    """
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
    given: Given,
    embeddings: Embeddings,
    processes: Processes,
    *,
    background: Floats | None,
    curves: list[Curve],
) -> tuple[Result, str]:
    """The scores of a test set, and its section of the report, which the first process makes."""
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


def embeddings_of(config: EvaluateConfig, processes: Processes) -> ModelEmbeddings:
    """The embeddings of the checkpoint's model, which are kept."""
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
    config: EvaluateConfig, test_sets: list[Given], embeddings: ModelEmbeddings
) -> dict[str, list[Curve]]:
    """The curves of each test set by name, of the sizes and exponents that are to be tried."""
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


def first_score(config: EvaluateConfig, processes: Processes) -> Score:
    """What gives a test set's first metric by the vectors [n, D] of its pictures."""

    def score(test_set: QuerySet, vectors: Floats) -> float:
        return score_first(test_set, compare(config, test_set, vectors, processes), processes)

    return score


def compare(
    config: EvaluateConfig, test_set: QuerySet, vectors: Floats, processes: Processes
) -> Compared:
    """The rows of vectors [n, D] that are compared, expanded where that is asked."""
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
