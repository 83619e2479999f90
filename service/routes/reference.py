"""GET /docs: /openapi.json as a page to read; no script, and nothing from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Any

Document = dict[str, Any]


def reference_page(document: Document) -> str:
    """The page of an OpenAPI document: each operation with its parameters, bodies and answers."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="/page/icon.svg"><link rel="stylesheet" href="/page/docs.css">'
        f'</head><body><main><h1>{title}</h1><p>For programs: <a href="/openapi.json">'
        f'/openapi.json</a>. To search: <a href="/">the page</a>.</p>{"".join(operations)}'
        "</main></body></html>"
    )


def _operation(method: str, path: str, operation: Document) -> str:
    name = escape(operation["operationId"])
    parts = [
        f'<section id="{name}"><h2><a href="#{name}"><code>{method} {escape(path)}</code></a></h2>',
        f"<p>{_words(operation.get('description', ''))}</p>",
        "<p>A key is needed.</p>" if "security" in operation else "",
        _table(("parameter", "in", "default", "what it is"), _parameters(operation)),
        _bodies(operation.get("requestBody", {})),
        _table(("status", "answer"), _answers(operation)),
        "</section>",
    ]
    return "".join(parts)


def _parameters(operation: Document) -> Iterator[tuple[str, ...]]:
    for one in operation.get("parameters", []):
        default = one["schema"].get("default")
        shown = "" if default is None else f"<code>{escape(str(default))}</code>"
        yield (
            f"<code>{escape(one['name'])}</code>",
            escape(one["in"]),
            "required" if one.get("required") else shown,
            _words(one.get("description", "")),
        )


def _bodies(body: Document) -> str:
    kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body.get("content", {}))
    return f"<p>Body: {kinds}.</p>" if kinds else ""


def _answers(operation: Document) -> Iterator[tuple[str, ...]]:
    for status, answer in sorted(operation["responses"].items()):
        yield escape(status), _words(answer["description"])


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def _words(text: str) -> str:
    """Text whose `names` between back quotes are set as code."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )
