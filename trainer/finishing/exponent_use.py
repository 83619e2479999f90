"""The exponent that a document gives to its size, and a model that pools with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from multigrain.document import Document
from multigrain.model import MultiGrain


def exponent_of(document: Document) -> float | None:
    """Return p* of the document's size, or its trained p; None for a pooling without one."""
    pooling = document.pooling
    return pooling.p_by_size.get(document.preprocessing.size, pooling.p)


def set_exponent(model: MultiGrain, p: float | None) -> None:
    """Pool with p from now on; nothing happens to a pooling without an exponent."""
    if model.pool.p is not None and p is not None:
        model.pool.p.data.fill_(p)


@contextmanager
def as_in_use(model: MultiGrain, document: Document) -> Iterator[None]:
    """Pool with the exponent of the document's size while the block runs."""
    before = None if model.pool.p is None else float(model.pool.p.detach())
    set_exponent(model, exponent_of(document))
    try:
        yield
    finally:
        set_exponent(model, before)
