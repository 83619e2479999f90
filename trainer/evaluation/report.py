"""What a page shows of a test set: curves, scores of right and wrong pairs, rows of pictures.

Q queries, N gallery rows, D embedding, P pairs, T right ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from multigrain.page import PICTURE_SIDE, card, document, figure, picture_uri, section, table
from multigrain.pair_metrics import Mask
from multigrain.photo import PhotoError
from multigrain.rank_metrics import Values
from multigrain.ranking import Floats, exact_search
from multigrain.right_pairs import pair_scores
from multigrain.truth import Rows, Truth
from trainer.evaluation.compared import Compared
from trainer.evaluation.curves import precision_recall_chart, roc_chart
from trainer.evaluation.picture_image import picture_image
from trainer.evaluation.results import Result
from trainer.evaluation.sweeps import first_metric
from trainer.finishing.report_svg import bar_chart
from trainer.protocols.test_set import Picture, QuerySet

NUM_QUERIES, NUM_SHOWN = 5, 7  # of the worst and of the best; answers of each
_PAIRS, _BINS = 20_000, 50


def report_page(model: Mapping[str, Any], sections: Sequence[str]) -> str:
    """The page of an evaluation, which needs nothing beside itself."""
    rows = [[name, str(value)] for name, value in model.items()]
    facts = section("Model", "", f'<div class="card wide">{table(["", ""], rows)}</div>')
    return document("Evaluation", ["<h1>Evaluation</h1>", *sections, facts])


def result_section(result: Result, test_set: QuerySet, rows: Compared, *, seed: int) -> str:
    """HTML of a test set's scores, by the rows that were compared."""
    name, truth = next(iter(test_set.truths.items()))
    metric = first_metric(test_set)
    of = f", {name}" if name else ""
    cards = [
        card(f"Scores of right and of wrong pairs{of}", _histogram(truth, rows, seed=seed)),
        card(f"Precision by recall{of}", precision_recall_chart(truth, rows)),
        *(curve.as_card() for curve in result.curves),
    ]
    body = f'{_table(result)}<div class="charts">{"".join(cards)}</div>'
    values = result.scores.per_query[metric]
    order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
    for title, chosen in (("Worst", order), ("Best", order[::-1])):
        shown = "".join(
            _row(int(query), test_set, truth, rows, values) for query in chosen[:NUM_QUERIES]
        )
        body += f'<div class="card wide"><h3>{title} queries by {metric}</h3>{shown}</div>'
    return section(result.name, _words(result), body)


def pairs_section(result: Result, cosines: Floats, same: Mask) -> str:
    """HTML of a list of pairs, by their cosines [P] and whether they show the same, bool [P]."""
    counts = [_binned(cosines[same == kind]) for kind in (True, False)]
    histogram = bar_chart([("same", counts[0]), ("not", counts[1])], low=-1.0, high=1.0)
    cards = card("Scores of pairs", histogram) + card(
        "Right pairs accepted", roc_chart(cosines, same)
    )
    return section(
        result.name, _words(result), f'{_table(result)}<div class="charts">{cards}</div>'
    )


def _table(result: Result) -> str:
    rows = [
        [name, f"{score.value:.4f}", f"{score.interval.low:.4f} to {score.interval.high:.4f}"]
        for name, score in result.scores.metrics.items()
    ]
    return f'<div class="card wide">{table(["metric", "value", "95 % interval"], rows)}</div>'


def _words(result: Result) -> str:
    options = "; ".join(f"{name}: {value}" for name, value in result.test_set.options.items())
    return (
        f"{result.protocol}, {result.data}: {result.scores.num_queries} queries, "
        f"{result.scores.num_gallery} in the gallery. {options}"
    )


def _row(query: int, test_set: QuerySet, truth: Truth, rows: Compared, values: Values) -> str:
    """A query and its first answers that count, framed right or wrong."""
    asked = test_set.queries[query]
    junk, relevant = truth.junk[query], truth.relevant[query]
    best = exact_search(rows.queries[query : query + 1], rows.gallery, NUM_SHOWN + len(junk))
    figures = [_figure(test_set.pictures[asked], "asked", f"{values[query]:.3f}")]
    for score, row in zip(best.scores[0], best.rows[0], strict=True):
        if row not in junk and len(figures) <= NUM_SHOWN:
            kind = "right" if row in relevant else "wrong"
            picture = test_set.pictures[test_set.gallery[row]]
            figures.append(_figure(picture, kind, f"{score:.3f}"))
    return f'<div class="query">{"".join(figures)}</div>'


def _figure(picture: Picture, kind: str, label: str) -> str:
    try:
        image = picture_image(picture, picture.path.read_bytes(), min_side=PICTURE_SIDE)
    except (OSError, PhotoError):  # its embedding is known, the photo has gone
        return ""
    lines = [label, _utf8(picture.path.name)]
    return figure(picture_uri(image), name=_utf8(str(picture.path)), lines=lines, kind=kind)


def _utf8(name: str) -> str:
    """A file's name as a page can hold it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _histogram(truth: Truth, rows: Compared, *, seed: int) -> str:
    """Cosines of right pairs and of pairs drawn among the others."""
    random = np.random.default_rng(seed)
    right = truth.pairs().T
    right = right[random.permutation(len(right))[:_PAIRS]]
    drawn = random.integers(0, (len(rows.queries), len(rows.gallery)), (_PAIRS, 2))
    wrong = [
        row not in truth.relevant[query] and row not in truth.junk[query] for query, row in drawn
    ]
    counts = [_counts(pairs, rows) for pairs in (right, drawn[wrong])]
    return bar_chart([("right", counts[0]), ("wrong", counts[1])], low=-1.0, high=1.0)


def _counts(pairs: Rows, rows: Compared) -> tuple[int, ...]:
    """How many of the pairs [T, 2] of (query, gallery row) have a cosine in each bin."""
    both = [torch.from_numpy(one) for one in rows]
    numbers = torch.from_numpy(np.ascontiguousarray(pairs.T))
    return _binned(pair_scores(both[0], both[1], numbers).numpy())


def _binned(cosines: Floats) -> tuple[int, ...]:
    return tuple(int(count) for count in np.histogram(cosines.clip(-1, 1), _BINS, (-1, 1))[0])
