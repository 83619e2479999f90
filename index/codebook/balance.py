"""How even the lists of a generation are, against what training left."""

import json
import logging
from collections.abc import Sequence

import numpy as np

from index.faiss_encode import list_sizes
from index.faiss_train import imbalance
from index.layout import Layout

# Above this times the imbalance of training, lists no longer fit the rows.
MAX_GROWTH = 1.5
_logger = logging.getLogger(__name__)


def warn_of_imbalance(layout: Layout, *, codebook: str, folders: Sequence[str]) -> None:
    """Compare the lists of all shards with the codebook's training; warn with both numbers."""
    try:
        trained = json.loads(layout.train_report(codebook).read_bytes())
    except (OSError, ValueError) as error:
        _logger.warning("whether lists grew uneven is not known: %s", error)
        return
    if not trained["nlist"] or not folders:
        return
    sizes = np.zeros(trained["nlist"], dtype=np.int64)
    for folder in folders:
        sizes += list_sizes(layout.lists(folder), trained["nlist"])
    now, then = imbalance(sizes), float(trained["imbalance"])
    if now > MAX_GROWTH * then:
        _logger.warning(
            "the lists are uneven: imbalance %.2f, %.2f when codebook %s was trained on %d rows; "
            "new photos are unlike those, and searches read more; an index built into a new --out "
            "is trained on all of them",
            now,
            then,
            codebook,
            trained["n_train"],
        )
