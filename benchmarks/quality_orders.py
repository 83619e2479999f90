"""How a gallery is ordered for a query: by cosine, and by what is done beyond it.

N gallery rows, D embedding.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from multigrain.expansion import augmented_gallery, expanded_queries
from multigrain.ranking import exact_search
from multigrain.reciprocal import Neighbourhood, reciprocal_distances

Rows = NDArray[np.float32]
Places = NDArray[np.int64]
# A query [D] and its gallery [N, D], unit rows -> rows, best first.
Order = Callable[[Rows, Rows], Places]


def by_cosine(query: Rows, gallery: Rows) -> Places:
    """Rows by falling cosine."""
    order: Places = np.argsort(-(gallery @ query), kind="stable")
    return order


def expansion(num: int) -> Order:
    """The query moved towards its nearest, asked again."""

    def order(query: Rows, gallery: Rows) -> Places:
        found = exact_search(query[None], gallery, num)
        moved = expanded_queries(query[None], gallery[found.rows], found.scores)
        return by_cosine(moved[0], gallery)

    return order


def augmentation(num: int) -> Order:
    """Every row of the gallery moved towards its nearest others."""
    # A gallery is moved once: the queries of a task share it, but for what each leaves out.
    kept = dict[bytes, Rows]()

    def order(query: Rows, gallery: Rows) -> Places:
        key = gallery.tobytes()
        if key not in kept:
            kept.clear()
            kept[key] = augmented_gallery(gallery, num)
        return by_cosine(query, kept[key])

    return order


def reciprocity(num: int, weight: float) -> Order:
    """The nearest ones, re-ranked by the neighbours they share with the query."""

    def order(query: Rows, gallery: Rows) -> Places:
        plain = by_cosine(query, gallery)
        head = plain[:num]
        constants = Neighbourhood(own_weight=weight)
        distances = reciprocal_distances(query[None], gallery[head][None], constants)[0]
        return np.concatenate([head[np.argsort(distances, kind="stable")], plain[len(head) :]])

    return order
