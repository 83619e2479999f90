"""What a search tells of the contents it has found."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from index.searching.present import Present
from index.searching.scoring import Ranked
from multigrain.calibration import Calibration


class Neighbour(NamedTuple):
    """A content found by a search: exact cosine, first live path, metadata with all `paths`.

    The probability that it shows the same thing is None where the index is not calibrated.
    """

    id: int
    score: float
    uri: str
    metadata: dict[str, Any]
    same_probability: float | None = None


def known_neighbours(
    ranked: Sequence[Ranked], present: Present, calibration: Calibration | None
) -> list[list[Neighbour]]:
    """What is known of ranked contents, also of those deleted since; one query for all."""
    entries = present.entries([int(i) for part in ranked for i in part.ids], also_dead=True)
    return [
        [
            Neighbour(int(i), float(score), entries[int(i)].uri, entries[int(i)].metadata, same)
            for i, score, same in zip(*part, _probabilities(part, calibration), strict=True)
        ]
        for part in ranked
    ]


def _probabilities(part: Ranked, calibration: Calibration | None) -> Sequence[float | None]:
    if calibration is None:
        return [None] * len(part.ids)
    probabilities: list[float] = calibration.probabilities(part.scores).tolist()
    return probabilities
