"""What the finished model does with the validation photos: scores, distances, neighbours.

n photos of a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from multigrain.document import Document
from multigrain.model import MultiGrain, Output
from trainer.engine.processes import Processes
from trainer.finishing.embedded import Part, embed_part
from trainer.finishing.exponent_use import as_in_use
from trainer.finishing.fit_whitening import Fitted
from trainer.finishing.report_data import Histogram, Query, Scores, Spectrum
from trainer.finishing.report_distances import distance_histograms
from trainer.finishing.report_neighbours import nearest, shown
from trainer.finishing.validate import gathered, scores_of, values_of
from trainer.inputs.labels import PhotoSet

PLAIN, FINISHED = "with p*, not whitened", "finished"
_MOST_POINTS = 200  # of the spectrum's curve


class Findings(NamedTuple):
    """Scores at each stage, and what the report shows of the finished model."""

    stages: tuple[Scores, ...]
    histograms: tuple[Histogram, ...]
    queries: tuple[Query, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The finished model's scores."""
        return self.stages[-1].scores if self.stages else {}


def evaluate(
    model: MultiGrain,
    document: Document,
    photos: PhotoSet,
    *,
    processes: Processes,
    say: Callable[[str], None],
) -> Findings:
    """Score the model as it will be used, with and without its whitening, in one pass.

    Nothing is found without validation photos. The pictures of the queries are made by the
    first process alone.
    """
    if not photos.names:
        return Findings((), (), ())
    with as_in_use(model.eval(), document):
        parts = embed_part(
            lambda pixels: _outputs(model, pixels),
            photos,
            document.preprocessing,
            device=model.pixel_mean.device,
            say=say,
        )
    names = [PLAIN, FINISHED][-len(parts) :]
    stages = tuple(
        Scores(stage=name, scores=scores_of(values_of(part, gathered(part), photos)))
        for name, part in zip(names, parts, strict=True)
    )
    for stage in stages:
        say(f"{stage.stage}: {', '.join(f'{n} {v:.4f}' for n, v in stage.scores.items())}")
    if worse := _worse(stages):
        say(worse)
    return _shown(parts[-1], photos, stages, processes)


def _worse(stages: tuple[Scores, ...]) -> str:
    """Return a line if the whitening has lowered the mean of the retrieval scores, else nothing.

    The classifier reads what is not whitened, so its scores stay.
    """
    names = [name for name in ("copy_recall_at_1", "class_ap") if name in stages[0].scores]
    before, after = (
        sum(stage.scores[name] for name in names) / max(1, len(names))
        for stage in (stages[0], stages[-1])
    )
    if after >= before:
        return ""
    return (
        f"whitened, the model retrieves worse (mean of {', '.join(names)} {after:.4f}, before "
        f"{before:.4f}): the same run with --resume auto --whiten-dim 0 ends without a whitening"
    )


def _shown(
    part: Part, photos: PhotoSet, stages: tuple[Scores, ...], processes: Processes
) -> Findings:
    gallery = gathered(part)
    if not len(gallery.photo_ids):
        return Findings(stages, (), ())
    found = nearest(part, gallery, photos)
    return Findings(
        stages,
        distance_histograms(part, gallery, photos),
        shown(found, photos) if processes.is_first else (),
    )


def _outputs(model: MultiGrain, pixels: Tensor) -> list[Output]:
    """Pixels [n, 3, h, w] -> the output without the whitening, if there is one, and with it."""
    sides = model.sides(model.pooled(pixels))
    logits = model.classifier(sides.head_input) if model.classifier is not None else None
    finished = Output(model.unit(sides.feature), logits)
    if model.whiten is None:
        return [finished]
    return [Output(F.normalize(sides.feature, dim=1), logits), finished]


def spectrum_of(fitted: Fitted) -> Spectrum:
    """Return the whitening's eigenvalues as shares of the largest, at ranks evenly in log."""
    whitening = fitted.document.embedding.whitening
    assert whitening is not None
    num_dims = len(fitted.spectrum)
    exponents = (place / (_MOST_POINTS - 1) for place in range(_MOST_POINTS))
    ranks = tuple(dict.fromkeys(round(num_dims**exponent) for exponent in exponents))
    shares = (fitted.spectrum / fitted.spectrum[0]).clamp_min(0).tolist()
    return Spectrum(
        num_dims=num_dims,
        kept=whitening.out,
        power=whitening.power,
        floor=whitening.floor,
        photos=whitening.photos,
        size=whitening.size,
        ranks=ranks,
        shares=tuple(shares[rank - 1] for rank in ranks),
    )
