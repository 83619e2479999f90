"""Pages that need nothing beside themselves: sections, tables, framed pictures.

Every text is escaped.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

_STYLE = Path(__file__).with_name("page.css")
PICTURE_SIDE = 128
_QUALITY = 80


def document(title: str, parts: Iterable[str]) -> str:
    """Put HTML into a page that needs nothing beside itself; the title is escaped."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def section(title: str, words: str, body: str) -> str:
    """Put HTML under a heading and a sentence, which are escaped."""
    text = f"<p>{escape(words)}</p>" if words else ""
    return f"<section><h2>{escape(title)}</h2>{text}{body}</section>"


def card(title: str, body: str) -> str:
    """Frame a chart under its title, which is escaped."""
    return f'<div class="card"><h3>{escape(title)}</h3>{body}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of texts, which are escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def figure(picture: str, *, name: str, lines: Sequence[str], kind: str) -> str:
    """Frame a picture, a data URI, by its kind: asked, right or wrong; the first line is bold."""
    first, *rest = (escape(line) for line in lines)
    caption = "".join(f"<span>{line}</span>" for line in (f"<b>{first}</b>", *rest) if line)
    named = escape(name, quote=True)
    return (
        f'<figure class="{kind}"><img src="{escape(picture, quote=True)}" alt="{named}" '
        f'title="{named}"><figcaption>{caption}</figcaption></figure>'
    )


def picture_uri(image: Image.Image) -> str:
    """An image, made small, as a data URI."""
    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
