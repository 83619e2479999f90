"""Metrics as their definitions read, one query after another."""

from collections.abc import Sequence


def slow_ap(ranks: Sequence[int], num_positives: int) -> float:
    """Average precision, rectangular: the precision at each positive that was found."""
    return sum((found + 1) / (rank + 1) for found, rank in enumerate(ranks)) / num_positives
