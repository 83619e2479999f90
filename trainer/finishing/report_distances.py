"""How far pairs that belong together lie, and all others: histograms of distances.

Q queries, N gallery rows.
"""

import torch
from torch import Tensor

from trainer.finishing.embedded import Part
from trainer.finishing.report_data import Histogram
from trainer.finishing.validate import Gallery, rows_of
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import spread
from trainer.losses.gather import sum_over_processes

NUM_BINS = 50
_MOST_QUERIES = 2000  # of each process; the shape is clear by then
_ROWS_AT_ONCE = 64


def distance_histograms(part: Part, gallery: Gallery, photos: PhotoSet) -> tuple[Histogram, ...]:
    """Return the histogram of copies, and with classes that of classes; of all processes."""
    own, originals = rows_of(part, gallery, photos)
    found = originals >= 0
    everyone = torch.arange(len(gallery.photo_ids), device=own.device)
    counts = [_counts(part.copies.embedding[found], gallery, originals[found], everyone, None)]
    names = ["an edited copy and its original"]
    if photos.class_names is not None:
        labels = torch.tensor(photos.labels, device=own.device)[gallery.photo_ids]
        taken = spread(len(own), _MOST_QUERIES)
        queries = part.photos.embedding[taken]
        counts.append(_counts(queries, gallery, labels[own[taken]], labels, own[taken]))
        names.append("two photos of a class")
    summed = [sum_over_processes(count).tolist() for count in counts]
    return tuple(
        Histogram(of=name, together=tuple(together), apart=tuple(apart))
        for name, (together, apart) in zip(names, summed, strict=True)
    )


def _counts(
    queries: Tensor, gallery: Gallery, wanted: Tensor, marks: Tensor, own: Tensor | None
) -> Tensor:
    """Count pairs int64 [2, bins]: queries [Q, D] whose mark is wanted, then the others.

    A query is not paired with its `own` row.
    """
    counts = torch.zeros(2 * (NUM_BINS + 1), dtype=torch.int64, device=marks.device)
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cosines = queries[rows] @ gallery.embedding.T
        distances = (2 - 2 * cosines).clamp(0, 4).sqrt()
        bins = (distances * (NUM_BINS / 2)).long().clamp_max(NUM_BINS - 1)
        if own is not None:
            bins.scatter_(1, own[rows, None], NUM_BINS)  # a bin that is cut off again
        apart = (marks[None] != wanted[rows, None]).long()
        counts += torch.bincount((bins + apart * (NUM_BINS + 1)).flatten(), minlength=len(counts))
    return counts.view(2, -1)[:, :NUM_BINS]
