"""k-reciprocal re-ranking as its paper writes it: sets and loops."""

import math

import numpy as np

from multigrain.ranking import Floats
from multigrain.reciprocal import Neighbourhood


def zhong(query: Floats, gallery: Floats, constants: Neighbourhood) -> list[float]:
    """Distances of one query to all of a gallery."""
    points = np.vstack([query[None], gallery]).astype(np.float64)
    distance = 1 - points @ points.T
    everyone = range(len(points))

    def nearest(p: int, k: int) -> list[int]:  # p itself first
        others = sorted((j for j in everyone if j != p), key=lambda j: distance[p, j])
        return [p, *others[: k - 1]]

    def reciprocal(p: int, k: int) -> set[int]:
        return {g for g in nearest(p, k + 1) if p in nearest(g, k + 1)}

    codes = []
    for p in everyone:
        found = reciprocal(p, constants.k1)
        extended = set(found)
        for g in found:
            half = reciprocal(g, round(constants.k1 / 2))
            if len(found & half) >= 2 / 3 * len(half) - 1e-9:
                extended |= half
        code = np.array([math.exp(-distance[p, g]) if g in extended else 0 for g in everyone])
        codes.append(code / code.sum())
    means = [np.mean([codes[g] for g in nearest(p, constants.k2)], axis=0) for p in everyone]

    def jaccard(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - np.minimum(a, b).sum() / np.maximum(a, b).sum())

    own = constants.own_weight
    return [
        (1 - own) * jaccard(means[0], means[g]) + own * distance[0, g] for g in everyone if g > 0
    ]
