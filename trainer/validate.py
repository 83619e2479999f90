"""Scores during training: top-1, and edited copies that must find their original.

n photos, D embedding. Every photo counts once, whatever the number of processes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multigrain.metrics import positive_ranks, recall_at
from multigrain.model import MultiGrain
from multigrain.transforms import Pixels, Preprocessing
from multigrain.views import VIEW_KINDS, edited_view
from trainer.gather import gather_rows, own_slice, sum_over_processes
from trainer.labels import PhotoSet
from trainer.reading import Skipped, prepared_batches, prepared_photo
from trainer.seeds import seed_of

COPIES_PER_PHOTO = 3
MOST_COPIED_PHOTOS = 2000  # the score is stable by then, and a large set would take an hour


class Embedded(NamedTuple):
    """Embeddings [n, D] and predicted classes [n] or None, and which photo each row is."""

    photo_ids: Tensor  # int64 [n]
    embedding: Tensor
    predicted: Tensor | None


def validate(
    model: MultiGrain,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    *,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Return `copy_recall_at_1`, and `top1` with classes; equal on all processes.

    Each process embeds a contiguous part of the photos; unreadable ones are left out and said.
    Ties count against the model and MetricError is raised for non-finite embeddings. The model is
    left in evaluation mode.
    """
    model.eval()
    own = own_slice(len(photos.names))
    originals = _embed(
        model, list(own), lambda photo_id, _: prepared_photo(photos, photo_id, preprocessing)
    )
    num_read = torch.tensor(len(originals.photo_ids), device=model.pixel_mean.device)
    if num_missing := len(photos.names) - int(sum_over_processes(num_read)):
        say(f"{num_missing} validation photos cannot be read and are left out")
    scores = {"copy_recall_at_1": _copy_recall(model, photos, preprocessing, originals, own)}
    if originals.predicted is not None:
        labels = torch.tensor(photos.labels)[originals.photo_ids]
        scores["top1"] = _share(originals.predicted == labels, device=model.pixel_mean.device)
    return scores


def _copy_recall(
    model: MultiGrain,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    originals: Embedded,
    own: range,
) -> float:
    """Search edited copies among all originals; recall of the right one at rank 1."""

    def read(photo_id: int, copy: int) -> Pixels:
        image = photos.image(photo_id, min_side=preprocessing.min_side)
        seed = seed_of("copy", photos.names[photo_id], copy)
        # Photos take turns, so that a small set too meets every kind of edit.
        kind = VIEW_KINDS[(photo_id * COPIES_PER_PHOTO + copy) % len(VIEW_KINDS)]
        return preprocessing.prepare(edited_view(image, kind=kind, seed=seed))

    every = -(-len(photos.names) // MOST_COPIED_PHOTOS)
    copied = [photo_id for photo_id in own if photo_id % every == 0]
    copies = _embed(model, copied, read, times=COPIES_PER_PHOTO)
    gallery = gather_rows(originals.embedding).cpu().numpy()
    gallery_ids = _gather_ids(originals, model).numpy()
    junk = np.zeros(len(gallery), np.bool_)
    found = [
        recall_at(positive_ranks(gallery @ query, gallery_ids == photo_id, junk), 1)
        for photo_id, query in zip(
            copies.photo_ids.tolist(), copies.embedding.cpu().numpy(), strict=True
        )
    ]
    return _share(torch.tensor(found), device=model.pixel_mean.device)


def _embed(
    model: MultiGrain,
    photo_ids: list[int],
    read: Callable[[int, int], Pixels],
    *,
    times: int = 1,
) -> Embedded:
    """Embed `read(photo_id, 0 .. times - 1)` of each photo, rows in that order."""
    device, skipped = model.pixel_mean.device, list[Skipped]()
    num_dims = model.backbone.num_channels
    numbers: list[int] = []
    rows, classes = [torch.empty(0, num_dims, device=device)], [torch.empty(0, dtype=torch.int64)]
    with torch.inference_mode():
        for batch in prepared_batches(
            lambda number: read(photo_ids[number // times], number % times),
            len(photo_ids) * times,
            skipped=skipped,
        ):
            output = model(batch.pixels.to(device))
            numbers += batch.numbers
            rows.append(output.embedding)
            if output.logits is not None:
                classes.append(output.logits.argmax(dim=1).cpu())
    order = torch.tensor(numbers, dtype=torch.int64).argsort()
    ids = torch.tensor([photo_ids[number // times] for number in numbers], dtype=torch.int64)
    predicted = torch.cat(classes)[order] if model.classifier is not None else None
    return Embedded(ids[order], torch.cat(rows)[order.to(device)], predicted)


def _gather_ids(embedded: Embedded, model: MultiGrain) -> Tensor:
    return gather_rows(embedded.photo_ids.to(model.pixel_mean.device)).cpu()


def _share(found: Tensor, *, device: torch.device) -> float:
    """Return the mean over all processes' values; each may hold another number of them."""
    local = torch.tensor([float(found.sum()), len(found)], dtype=torch.float64, device=device)
    total, count = sum_over_processes(local).tolist()
    return total / count if count else 0.0
