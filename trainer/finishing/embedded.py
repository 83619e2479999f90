"""Embed the validation photos and their copies, each process its own part, unpadded.

n pictures, D embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multigrain.metrics import MetricError
from multigrain.model import Output
from multigrain.scoring import class_ranks
from multigrain.transforms import Pixels, Preprocessing
from trainer.finishing.copies import Picture, copies_of, prepared_picture
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import Skipped, prepared_batches
from trainer.losses.gather import gather_rows, own_slice, sum_over_processes

# Pixels [n, 3, h, w] of one batch -> one output for each way of embedding that is compared.
Forward = Callable[[Tensor], Sequence[Output]]

_MOST_NAMED = 3  # unreadable photos, of any number


class Rows(NamedTuple):
    """Embedded pictures in the order they were asked for; without those that cannot be read."""

    pictures: list[Picture]
    embedding: Tensor  # [n, D]
    class_ranks: Tensor | None  # int64 [n], of the right class; None without a classifier
    finite: bool  # embeddings and logits


class Part(NamedTuple):
    """What one process has embedded."""

    photos: Rows
    copies: Rows


def embed_part(
    forward: Forward,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Part]:
    """Embed this process's photos and copies; one part for each output of `forward`.

    Photos that cannot be read are left out; their number is said, and of the first ones name
    and reason. Raises MetricError, on every process, for an embedding or a logit that is not
    finite.
    """
    num_photos = len(photos.names)
    own = own_slice(num_photos)
    pictures = [Picture(photo_id) for photo_id in own]
    originals, skipped = _embed(forward, photos, pictures, preprocessing, device=device)
    _say_skipped(
        [(photos.names[own[number]], reason) for number, reason in skipped], device=device, say=say
    )
    edited = copies_of(own, num_photos=num_photos)
    copies, _ = _embed(forward, photos, edited, preprocessing, device=device)
    num_broken = torch.tensor(sum(not rows.finite for rows in originals + copies), device=device)
    # Agreed upon: a process that stopped alone would leave the others waiting.
    if int(sum_over_processes(num_broken)):
        raise MetricError("an embedding or a logit is not finite: the model is broken")
    return [Part(*pair) for pair in zip(originals, copies, strict=True)]


def _say_skipped(
    skipped: Sequence[tuple[str, str]], *, device: torch.device, say: Callable[[str], None]
) -> None:
    """Only the first process speaks, so it must know of all; of each process the first few."""
    count = int(sum_over_processes(torch.tensor(len(skipped), device=device)))
    if not count:
        return
    words = "\0".join(f"{name} ({reason})" for name, reason in skipped[:_MOST_NAMED])
    # A photo's name need not be UTF-8; what is said is.
    own = words.encode(errors="backslashreplace") + b"\0" * bool(skipped)
    gathered = gather_rows(torch.tensor(list(own), dtype=torch.uint8, device=device))
    named = bytes(gathered.tolist()).decode().split("\0")[:-1][:_MOST_NAMED]
    more = f" and {count - len(named)} more" if count > len(named) else ""
    say(f"{count} validation photos cannot be read and are left out: {', '.join(named)}{more}")


@torch.inference_mode()
def _embed(
    forward: Forward,
    photos: PhotoSet,
    pictures: list[Picture],
    preprocessing: Preprocessing,
    *,
    device: torch.device,
) -> tuple[list[Rows], list[Skipped]]:
    # What no pixels give, for the kinds and numbers of columns: a process may have no photo.
    nothing = forward(torch.zeros(1, 3, *preprocessing.shapes()[0], device=device))
    none = torch.empty(0, dtype=torch.int64, device=device)
    found = [_Found([], [], []) for _ in nothing]
    for rows, output in zip(found, nothing, strict=True):
        logits = None if output.logits is None else output.logits[:0]
        rows.add(Output(output.embedding[:0], logits), none)
    numbers, skipped = list[int](), list[Skipped]()

    def read(number: int) -> Pixels:
        return prepared_picture(photos, pictures[number], preprocessing)

    for batch in prepared_batches(read, len(pictures), skipped=skipped):
        labels = [photos.labels[pictures[number].photo_id] for number in batch.numbers]
        numbers += batch.numbers
        for rows, output in zip(found, forward(batch.pixels.to(device)), strict=True):
            rows.add(output, torch.tensor(labels, device=device))
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    read_pictures = [pictures[numbers[place]] for place in order]
    return [rows.ordered(read_pictures, order) for rows in found], skipped


class _Found(NamedTuple):
    """Rows as the batches give them: grouped by shape, not in the order asked for."""

    embeddings: list[Tensor]
    class_ranks: list[Tensor]
    finite: list[Tensor]

    def add(self, output: Output, labels: Tensor) -> None:
        self.embeddings.append(output.embedding)
        self.finite.append(torch.isfinite(output.embedding).all())
        if output.logits is not None:
            self.class_ranks.append(class_ranks(output.logits, labels))
            self.finite.append(torch.isfinite(output.logits).all())

    def ordered(self, pictures: list[Picture], order: list[int]) -> Rows:
        ranks = torch.cat(self.class_ranks)[order] if self.class_ranks else None
        finite = bool(torch.stack(self.finite).all())
        return Rows(pictures, torch.cat(self.embeddings)[order], ranks, finite)
