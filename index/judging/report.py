"""What an index loses, as a page: tables with intervals, the worst queries as rows of pictures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from index.judging.losses import Line
from index.judging.questions import Questions
from index.searcher import Searcher
from multigrain.page import PICTURE_SIDE, card, document, figure, picture_uri, section, table
from multigrain.photo import PhotoError, open_photo

NUM_QUERIES, NUM_SHOWN = 5, 7
_WORDS = "Each against the first line; in brackets the 95 % interval over queries."

Part = tuple[str, list[Line]]


def losses_page(facts: Mapping[str, Any], parts: Sequence[Part], worst: str) -> str:
    """The page, which needs nothing beside itself; `worst` is HTML, as `worst_queries` gives it."""
    rows = [[name, str(value)] for name, value in facts.items()]
    index = section("Index", "", f'<div class="card wide">{table(["", ""], rows)}</div>')
    tables = [section(title, _WORDS, _table(lines)) for title, lines in parts]
    return document(
        "What the index loses", ["<h1>What the index loses</h1>", *tables, worst, index]
    )


def worst_queries(searcher: Searcher, questions: Questions, search: Line) -> str:
    """HTML of the queries that a search answers worst: what it finds, framed right or wrong."""
    order = np.lexsort((search.judged.agreement, search.judged.ap))[:NUM_QUERIES]
    found = searcher.search(questions.rows[order], NUM_SHOWN)
    rows = list[str]()
    for query, neighbours in zip(order.tolist(), found, strict=True):
        lines = [f"{search.judged.ap[query]:.3f}", questions.names[query]]
        figures = [_figure(questions.picture, query, lines, "asked")]
        for one in neighbours:
            kind = "right" if one.id in questions.answers[query] else "wrong"
            lines = [f"{one.score:.3f}", one.uri.rpartition("/")[2]]
            figures.append(_figure(partial(_photo, searcher), one.id, lines, kind))
        rows.append(f'<div class="query">{"".join(figures)}</div>')
    title = f"Worst queries by AP of ten: {search.name}"
    return section("Queries", "", card(title, "".join(rows)))


def _table(lines: Sequence[Line]) -> str:
    head = ["", "of the ten nearest", "recall@1", "AP of ten", "ms a query"]
    rows = [
        [
            line.name,
            *(
                f"{one.value:.3f} ({one.interval.low:.3f} to {one.interval.high:.3f})"
                for one in line.judged.estimates().values()
            ),
            "" if line.milliseconds is None else f"{line.milliseconds:.2f}",
        ]
        for line in lines
    ]
    return f'<div class="card wide">{table(head, rows)}</div>'


def _photo(searcher: Searcher, content: int) -> str:
    data = searcher.read_photo(content)
    if data is None:
        raise PhotoError("photo_unreadable", "the photo has gone")
    return picture_uri(open_photo(data, min_side=PICTURE_SIDE).image)


def _figure(picture: Callable[[int], str], number: int, lines: Sequence[str], kind: str) -> str:
    try:
        uri = picture(number)
    except (OSError, PhotoError):  # its row is known, the photo has gone
        uri = ""
    return figure(uri, name=lines[-1], lines=lines, kind=kind)
