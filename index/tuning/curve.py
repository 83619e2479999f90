"""The curve of a tuned generation: measured searches, and which of them is taken."""

from collections.abc import Sequence
from math import floor
from typing import NamedTuple

from index.codebook.factory import is_exact
from index.errors import IndexFolderError, RecallNotReachedError
from index.manifest import CurvePoint, Manifest


class SearchDepth(NamedTuple):
    """Lists to search and candidates to re-score; None: the factory's start values."""

    nprobe: int | None
    rerank: int | None


def fastest_point(points: Sequence[CurvePoint], recall: float) -> CurvePoint | None:
    """The point of least time whose lower bound reaches a recall; None where none does."""
    reached = [point for point in points if point.recall_lower >= recall]
    return min(reached, key=lambda point: (point.microseconds, point.nprobe), default=None)


def best_point(points: Sequence[CurvePoint]) -> CurvePoint:
    """The point of largest lower bound, of equal ones the fastest."""
    return min(points, key=lambda point: (-point.recall_lower, point.microseconds))


def search_depth(manifest: Manifest, recall: float | None) -> SearchDepth:
    """The tuned search of a generation, or the fastest measured one that reaches a recall.

    Raises IndexFolderError for a recall outside (0, 1], and RecallNotReachedError, naming what
    can be reached, where no measured search does.
    """
    tuned = SearchDepth(manifest.search.nprobe, manifest.search.rerank)
    if recall is None:
        return tuned
    if not 0 < recall <= 1:
        raise IndexFolderError(f"recall is {recall}: it must be above 0 and at most 1")
    if is_exact(manifest.factory):
        return tuned
    point = fastest_point(manifest.search.curve, recall)
    if point is None:
        raise RecallNotReachedError(_not_reached(manifest, recall))
    return SearchDepth(point.nprobe, point.rerank)


def _not_reached(manifest: Manifest, recall: float) -> str:
    # Cut, not rounded: what is named can be asked for.
    bounds = sorted({floor(1e4 * point.recall_lower) / 1e4 for point in manifest.search.curve})
    if not bounds:
        return (
            f"recall {recall} cannot be chosen: generation {manifest.generation} was not tuned; "
            "run index.build again while its photos can be read"
        )
    return (
        f"recall {recall} is not reached: the searches measured for generation "
        f"{manifest.generation} reach {', '.join(f'{bound:g}' for bound in bounds)}; ask for one "
        "of these, or build with a larger --target-recall"
    )
