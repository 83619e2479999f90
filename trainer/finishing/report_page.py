"""The report as one HTML page that needs nothing beside itself."""

from collections.abc import Mapping, Sequence
from html import escape

from multigrain.page import card, document, figure, section, table
from trainer.finishing.exponent_choice import Choice
from trainer.finishing.report_curves import Panel
from trainer.finishing.report_data import Histogram, Query, ReportData, Scores, Shown, Spectrum
from trainer.finishing.report_svg import Line, Mark, bar_chart, line_chart, number_text

_NAMES = {
    "top1": "top-1 of the classifier",
    "top5": "top-5 of the classifier",
    "copy_recall_at_1": "copy recall at 1",
    "copy_ap": "copy AP",
    "class_ap": "class AP",
}


def page(
    title: str,
    *,
    data: ReportData | None,
    panels: Sequence[Panel],
    files: Mapping[str, str],
) -> str:
    """Return the page; `files` are texts to show as they are, by name. Every string is escaped."""
    parts = [_head(title, data), _curves(panels)]
    if data is not None:
        parts += [
            _exponents(data.choices),
            _spectrum(data.spectrum),
            _histograms(data.histograms),
            _neighbours(data.queries),
        ]
    parts += [_file(name, text) for name, text in files.items()]
    return document(title, parts)


_UNFINISHED = "This run is not finished: there are its curves and settings, and no scores yet."


def _head(title: str, data: ReportData | None) -> str:
    heading = f"<h1>{escape(title)}</h1>"
    if data is None:
        return f"{heading}<p>{_UNFINISHED}</p>"
    words = (
        f"Trained on {data.num_training} photos, validated on {data.num_validation}. "
        f"Fingerprint <code>{escape(data.fingerprint[:12])}</code>."
    )
    finished = data.stages[-1].scores if data.stages else {}
    tiles = "".join(
        f'<div class="tile"><b>{value:.3f}</b><span>{escape(_NAMES.get(name, name))}</span></div>'
        for name, value in finished.items()
    )
    return f'{heading}<p>{words}</p><div class="tiles">{tiles}</div>{_scores(data.stages)}'


def _scores(stages: Sequence[Scores]) -> str:
    names = list(dict.fromkeys(name for stage in stages for name in stage.scores))
    if not names:
        return ""
    rows = [[stage.stage, *(_score(stage.scores.get(name)) for name in names)] for stage in stages]
    scores = table(["stage", *(_NAMES.get(name, name) for name in names)], rows)
    words = (
        "Every validation photo counts once. Copy recall: an edited copy whose nearest photo is "
        "its original. Class AP: rectangular average precision of a photo's class among the "
        "other photos. Ties count against the model."
    )
    return section("Scores", words, f'<div class="card wide">{scores}</div>')


def _curves(panels: Sequence[Panel]) -> str:
    cards = "".join(card(panel.title, panel.svg) for panel in panels)
    return section("Training", "By step.", f'<div class="charts">{cards}</div>') if cards else ""


def _exponents(choices: Sequence[Choice]) -> str:
    if not choices:
        return ""
    words = (
        "The pooling's exponent for each size of the input, tried on the validation photos in "
        "one pass of the trunk. Judged by the mean of a score of classes and one of copies; of "
        "those within one standard error of the best, the one nearest to the trained exponent."
    )
    charts = "".join(
        card(f"{choice.size} px: p* = {number_text(choice.chosen)}", _choice(choice))
        for choice in choices
    )
    rows = [
        [
            f"{choice.size} px",
            number_text(choice.trained),
            number_text(choice.chosen),
            *(f"{_trial_mean(choice, p):.4f}" for p in (choice.trained, choice.chosen)),
            str(choice.num_photos),
            f"{choice.seconds:.1f} s",
        ]
        for choice in choices
    ]
    head = ["size", "trained p", "p*", "mean at p", "mean at p*", "photos", "time"]
    trials = f'<div class="card wide">{table(head, rows)}</div>'
    return section("Exponent p*", words, f'<div class="charts">{charts}</div>{trials}')


def _choice(choice: Choice) -> str:
    names = ("top1", "class_ap", "copy_ap")
    lines = [
        Line(_NAMES[name], [(trial.p, trial.scores[name]) for trial in choice.trials], dots=True)
        for name in names
        if name in choice.trials[0].scores
    ]
    lines.append(Line("mean", [(trial.p, trial.mean) for trial in choice.trials], dots=True))
    marks = [Mark("p*", choice.chosen)]
    if choice.trained != choice.chosen:
        marks.append(Mark("trained", choice.trained))
    return line_chart(lines, marks=marks)


def _trial_mean(choice: Choice, p: float) -> float:
    return next(trial.mean for trial in choice.trials if trial.p == p)


def _spectrum(spectrum: Spectrum | None) -> str:
    if spectrum is None:
        return ""
    words = (
        f"{spectrum.num_dims} dimensions to {spectrum.kept}, fitted on {spectrum.photos} training "
        f"photos at {spectrum.size} px, power {number_text(spectrum.power)}; eigenvalues below "
        f"{number_text(spectrum.floor)} of the largest count as that."
    )
    points = list(zip(spectrum.ranks, spectrum.shares, strict=True))
    chart = line_chart(
        [Line("eigenvalue, share of the largest", [point for point in points if point[1] > 0])],
        marks=[Mark("kept", spectrum.kept)],
        log_x=True,
        log_y=True,
    )
    values = card("Eigenvalues by rank, as shares of the largest", chart)
    return section("Whitening", words, f'<div class="charts">{values}</div>')


def _histograms(histograms: Sequence[Histogram]) -> str:
    cards = "".join(
        card(
            histogram.of[:1].upper() + histogram.of[1:],
            bar_chart(
                [("these pairs", histogram.together), ("all others", histogram.apart)],
                low=0.0,
                high=2.0,
            ),
        )
        for histogram in histograms
    )
    words = "Distances between embeddings of validation photos, 0 to 2, as shares of their kind."
    return section("Distances", words, f'<div class="charts">{cards}</div>') if cards else ""


def _neighbours(queries: Sequence[Query]) -> str:
    kinds = (
        ("class", "Photos and their nearest others", "Green: of the same class."),
        ("copy", "Edited copies and their nearest photos", "Green: the original."),
    )
    sections = []
    for by, title, words in kinds:
        rows = "".join(_query(query) for query in queries if query.by == by)
        if rows:
            sections.append(section(title, words, f'<div class="card wide">{rows}</div>'))
    return "".join(sections)


def _query(query: Query) -> str:
    found = "".join(_shown(shown, kind=_kind(shown)) for shown in query.neighbours)
    return f'<div class="query">{_shown(query.query, kind="asked")}{found}</div>'


def _kind(shown: Shown) -> str:
    return "right" if shown.right else "wrong"


def _shown(shown: Shown, *, kind: str) -> str:
    first = "query" if shown.distance is None else f"{shown.distance:.3f}"
    lines = [first, shown.label or "", shown.name.rpartition("/")[2]]
    return figure(shown.picture, name=shown.name, lines=lines, kind=kind)


def _file(name: str, text: str) -> str:
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"  # noqa: RUF001 - a dash for nothing
