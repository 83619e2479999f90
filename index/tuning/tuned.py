"""What the last tuning measured, and whether it still holds for the rows there are now."""

import logging

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from index.codebook.factory import is_exact
from index.codebook.train import Codebook
from index.layout import Layout
from index.manifest import Manifest, SearchPart, canonical_json
from index.steps import Steps
from index.store import write_whole

_CHANGED_SHARE = 0.1
_logger = logging.getLogger(__name__)


class _Record(BaseModel):
    """tuned.json: a search and the codebook it was measured with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codebook: str
    search: SearchPart


def write_tuned(layout: Layout, codebook: Codebook, search: SearchPart, *, steps: Steps) -> None:
    """Keep a measured search until a generation carries it."""
    record = _Record(codebook=codebook.name, search=search)
    write_whole(layout.tuned, canonical_json(record.model_dump(mode="json")), steps=steps)


def forget_tuned(layout: Layout) -> None:
    """Remove what a published generation carries."""
    layout.tuned.unlink(missing_ok=True)


def last_tuned(layout: Layout, parent: Manifest | None, codebook: Codebook) -> SearchPart:
    """The search last measured with a codebook, else the live generation's; else an untuned one.

    Where every row is compared there is nothing to measure: recall is 1.
    """
    if is_exact(codebook.factory):
        return SearchPart(recall=1.0, recall_lower=1.0)
    record = _read(layout)
    if record and record.codebook == codebook.name:
        return record.search
    is_same = parent is not None and parent.codebook == codebook.name
    return parent.search if parent and is_same else SearchPart()


def is_tuning_due(last: SearchPart, live_ids: NDArray[np.int64], *, target: float) -> bool:
    """Whether another recall is asked for, or over a tenth of the rows came or went since.

    `live_ids` int64, ascending.
    """
    num_kept = int(np.searchsorted(live_ids, last.tuned_next_id))
    num_changed = len(live_ids) - num_kept + abs(last.tuned_live - num_kept)
    return last.target != target or num_changed > _CHANGED_SHARE * last.tuned_live


def _read(layout: Layout) -> _Record | None:
    try:
        return _Record.model_validate_json(layout.tuned.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _logger.warning("%s is passed over: %s", layout.tuned, error)
        return None
