"""Scores of a model on the validation photos: classes, and edited copies of each photo.

n photos, D embedding. Every photo counts once, whatever the number of processes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from multigrain.model import MultiGrain
from multigrain.scoring import ClassScores, class_scores, copy_ranks
from multigrain.transforms import Preprocessing
from trainer.finishing.embedded import Part, embed_part
from trainer.inputs.labels import PhotoSet
from trainer.losses.gather import gather_rows

# Of classes; with as few classes every answer is among the first five.
TOP_K = 5
SCORES = ("top1", "top5", "copy_recall_at_1", "class_ap")

# By the name of a score one float64 value a query, of all processes in the photos' order, on
# the CPU. Besides SCORES there is `copy_ap`, the reciprocal rank of a copy's original.
Values = dict[str, Tensor]


class Gallery(NamedTuple):
    """The readable photos of all processes: embeddings [n, D] and photo ids int64 [n]."""

    embedding: Tensor
    photo_ids: Tensor


def validate(
    model: MultiGrain,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    *,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Return `copy_recall_at_1`, and with classes `top1`, `top5` and `class_ap`.

    top1 and top5 are the classifier's, top5 from six classes on. `class_ap` is the mean
    rectangular average precision of each photo's class among the other photos;
    `copy_recall_at_1` the share of edited copies whose nearest photo is their original. Equal
    on all processes: each embeds a contiguous part; unreadable photos are left out and said.
    Ties count against the model. Raises MetricError for embeddings that are not finite. The
    model is left in evaluation mode.
    """
    part = embed_validation(model, photos, preprocessing, say=say)
    return scores_of(values_of(part, gathered(part), photos))


def scores_of(values: Values) -> dict[str, float]:
    """Return the means of the values that are scores."""
    return {name: float(values[name].mean()) for name in SCORES if name in values}


def embed_validation(
    model: MultiGrain,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    *,
    say: Callable[[str], None],
) -> Part:
    """Embed this process's part as the model is, in evaluation mode."""
    model.eval()
    device = model.pixel_mean.device
    (part,) = embed_part(
        lambda pixels: [model(pixels)], photos, preprocessing, device=device, say=say
    )
    return part


def gathered(part: Part) -> Gallery:
    """Return the photos of all processes, the same on each."""
    rows = part.photos
    ids = torch.tensor([picture.photo_id for picture in rows.pictures], dtype=torch.int64)
    return Gallery(gather_rows(rows.embedding), gather_rows(ids.to(rows.embedding.device)))


def values_of(part: Part, gallery: Gallery, photos: PhotoSet) -> Values:
    """Score this process's part against everyone's photos, and gather the values."""
    found = _copy_values(part, gallery, photos)
    if photos.class_names is not None:
        found |= _class_values(part, gallery, photos)
    values = {name: gather_rows(value).double().cpu() for name, value in found.items()}
    kept = {name: value[~value.isnan()] for name, value in values.items()}
    return {name: value for name, value in kept.items() if len(value)}


def rows_of(part: Part, gallery: Gallery, photos: PhotoSet) -> tuple[Tensor, Tensor]:
    """Gallery rows int64 of this process's photos, and of its copies' originals."""
    device = gallery.photo_ids.device
    rows = torch.full((len(photos.names),), -1, dtype=torch.int64, device=device)
    rows[gallery.photo_ids] = torch.arange(len(gallery.photo_ids), device=device)
    own, copied = (
        rows[torch.tensor([picture.photo_id for picture in pictures], dtype=torch.int64).to(device)]
        for pictures in (part.photos.pictures, part.copies.pictures)
    )
    return own, copied


def _copy_values(part: Part, gallery: Gallery, photos: PhotoSet) -> Values:
    _, originals = rows_of(part, gallery, photos)
    ranks = copy_ranks(part.copies.embedding, originals.clamp_min(0), gallery.embedding)
    # An original that could be read only the second time is found by no copy.
    ranks[originals < 0] = len(gallery.photo_ids)
    return {"copy_recall_at_1": (ranks == 0).double(), "copy_ap": 1 / (ranks.double() + 1)}


def _class_values(part: Part, gallery: Gallery, photos: PhotoSet) -> Values:
    own, _ = rows_of(part, gallery, photos)
    labels = torch.tensor(photos.labels, device=own.device)[gallery.photo_ids]
    scores: ClassScores = class_scores(part.photos.embedding, own, gallery.embedding, labels)
    values = {"class_ap": scores.ap}
    ranks = part.photos.class_ranks
    if ranks is not None:
        values["top1"] = (ranks < 1).double()
        if len(photos.class_names or ()) > TOP_K:
            values["top5"] = (ranks < TOP_K).double()
    return values
