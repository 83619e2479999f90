"""What another pooling exponent would find: copies of photos, by one forward pass of the trunk.

Letters: n photos of a batch, N photos, C channels, E embedding.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from index.judging.losses import Line
from index.judging.questions import NUM_NEIGHBOURS, judge
from multigrain.checkpoint import load_checkpoint
from multigrain.embedder import Embedder
from multigrain.model import MultiGrain
from multigrain.photo import PhotoError
from multigrain.pooling import GeM
from multigrain.ranking import exact_search
from multigrain.views import VIEW_KINDS

EXPONENTS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)
_BATCH = 8
_SEED = 20190222

Pixels = NDArray[np.uint8]


def exponent_lines(
    checkpoint: Path,
    embedder: Embedder,
    read_photo: Callable[[int], bytes | None],
    ids: Sequence[int],
) -> Iterator[Line]:
    """Each exponent's scores: an edited view of each photo asks among the photos for its own.

    Without the whitening, which was fitted at the checkpoint's own exponent; that one is the
    reference of the agreement and comes first. Nothing for other poolings than GeM. Photos that
    cannot be read are left out.
    """
    model = load_checkpoint(checkpoint).model.eval()
    if not isinstance(model.pool, GeM):
        return
    trained = float(model.pool.exponent)
    exponents = [trained, *(p for p in EXPONENTS if p != trained)]
    pairs = list(_pairs(embedder, read_photo, ids))
    photos = _embedded(model, [photo for photo, _ in pairs], exponents)
    views = _embedded(model, [view for _, view in pairs], exponents)
    reference: list[NDArray[np.int64]] | None = None
    for p, queries, gallery in zip(exponents, views, photos, strict=True):
        found = list(exact_search(queries, gallery, NUM_NEIGHBOURS).rows)
        reference = reference or found
        own = [np.array([place]) for place in range(len(pairs))]
        name = f"p {p:g}" + (", the checkpoint's own" if p == trained else "")
        yield Line(f"p_{p:g}", name, judge(found, reference=reference, answers=own))


def _pairs(
    embedder: Embedder, read_photo: Callable[[int], bytes | None], ids: Sequence[int]
) -> Iterator[tuple[Pixels, Pixels]]:
    """Prepared pixels of each photo that can be read, and of an edited view of it."""
    for place, one in enumerate(ids):
        data = read_photo(one)
        if data is None:
            continue
        kind = VIEW_KINDS[place % len(VIEW_KINDS)]
        try:
            view = embedder.read_view(data, kind=kind, seed=_SEED + one).pixels
            yield embedder.read(data).pixels, view
        except PhotoError:
            continue


def _embedded(
    model: MultiGrain, pixels: Sequence[Pixels], exponents: Sequence[float]
) -> list[NDArray[np.float32]]:
    """Unit rows [N, E] without whitening, for each exponent; shapes share a forward pass."""
    pools = [GeM(p) for p in exponents]
    rows: list[list[torch.Tensor]] = [[torch.empty(0)] * len(pixels) for _ in exponents]
    of_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, one in enumerate(pixels):
        of_shape[one.shape].append(place)
    with torch.inference_mode():
        for places in of_shape.values():
            for start in range(0, len(places), _BATCH):
                batch = places[start : start + _BATCH]
                stacked = torch.from_numpy(np.stack([pixels[place] for place in batch]))
                features = model.backbone(model.normalise(stacked.permute(0, 3, 1, 2)))
                for own, pool in zip(rows, pools, strict=True):
                    e = model.sides(model.reduced(pool(features))).feature
                    for place, row in zip(batch, F.normalize(e, dim=1), strict=True):
                        own[place] = row
    return [torch.stack(own).numpy() for own in rows]
