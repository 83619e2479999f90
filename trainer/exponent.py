"""Find the pooling's exponent p* for sizes of the input, and write a checkpoint that has it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from multigrain.config import Config
from multigrain.errors import MultiGrainError
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.settings_finish import EXPONENTS, WHITEN_FLOOR, WHITEN_POWER, Exponent, Size
from trainer.speech import say

if TYPE_CHECKING:
    from multigrain.checkpoint import Checkpoint
    from multigrain.document import Document
    from trainer.engine.processes import Processes
    from trainer.inputs.labels import PhotoSet

PROG = "python -m trainer.exponent"


class ExponentError(MultiGrainError):
    """A checkpoint whose exponent cannot be changed as asked."""


class ExponentConfig(Config):
    """Flags of the search for exponents."""

    model_config = ConfigDict(allow_inf_nan=False)

    checkpoint: Path = Field(description="checkpoint file, pooled by gem")
    photos: list[Path] = Field(
        min_length=1,
        description="photos to try exponents on, any source that training takes; folders that "
        "are classes of the checkpoint score its classifier; repeatable",
    )
    size: tuple[Size, ...] = Field(
        default=(), description="side of the model's input; repeatable; unset: the checkpoint's"
    )
    exponents: tuple[Exponent, ...] = Field(
        default=EXPONENTS, min_length=1, description="exponents to try; repeatable"
    )
    whiten: list[Path] = Field(
        default=[],
        description="photos to fit the whitening on again, with its own dimensions, power and "
        "floor; needed for a checkpoint that has one, and adds one to a checkpoint without; "
        "repeatable",
    )
    out: Path = Field(description="checkpoint file to write")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the photos are embedded"
    )


def find(config: ExponentConfig) -> Path:
    """Write the checkpoint with its new exponents and return its path.

    Raises ExponentError for a pooling without an exponent, for too few photos, and for a
    whitened checkpoint without photos to fit the whitening on again.
    """
    from multigrain.checkpoint import load_checkpoint, save_checkpoint
    from trainer.engine.processes import alone
    from trainer.finishing.exponent_grid import find_exponents
    from trainer.finishing.exponent_use import set_exponent
    from trainer.inputs.labels import read_photos

    check_out_file(config.out)
    checkpoint = load_checkpoint(config.checkpoint)
    model, document = checkpoint.model, checkpoint.document
    _check(config, document)
    processes = alone(config.device)
    model.to(processes.device)
    set_exponent(model, document.pooling.p)
    plain = _without_whitening(checkpoint)
    classifier = model.classifier
    photos, is_known = with_known_classes(read_photos(config.photos, say=say), document)
    if not is_known:
        model.classifier = None  # it knows nothing of these photos' classes
    found, choices = find_exponents(
        model,
        plain,
        photos,
        sizes=config.size or (document.preprocessing.size,),
        exponents=config.exponents,
        say=say,
    )
    model.classifier = classifier
    if not choices:
        raise ExponentError(f"no exponent can be found on the photos of {config.photos[0]}")
    if config.whiten:
        found = _whitened_again(config, checkpoint, found, processes)
    save_checkpoint(config.out, model, found)
    return config.out


def with_known_classes(photos: "PhotoSet", document: "Document") -> tuple["PhotoSet", bool]:
    """Return photos with the classifier's labels, and whether their classes are known to it.

    Other classes stay as they are and serve class AP.
    """
    known = document.classifier.class_names if document.classifier else ()
    own = photos.class_names
    if own is None or not set(own) <= set(known):
        say(
            "scored by copies alone: the photos have no classes"
            if own is None
            else "scored by class AP and copies: no classifier knows these classes"
        )
        return photos, False
    say("scored by the classifier's top-1 and copies")
    place = {name: number for number, name in enumerate(known)}
    labels = tuple(place[own[label]] for label in photos.labels)
    return photos._replace(labels=labels, class_names=known), True


def _check(config: ExponentConfig, document: "Document") -> None:
    if document.pooling.p is None:
        raise ExponentError(
            f"{config.checkpoint} is pooled by {document.pooling.kind}, which has no exponent"
        )
    if document.embedding.whitening is not None and not config.whiten:
        raise ExponentError(
            f"{config.checkpoint} is whitened for the exponent it has: give --whiten PHOTOS to "
            f"fit the whitening again at the new one"
        )


def _without_whitening(checkpoint: "Checkpoint") -> "Document":
    checkpoint.model.whiten = None
    document = checkpoint.document
    embedding = document.embedding.model_copy(
        update={"whitening": None, "dim": document.reduced_dim}
    )
    return document.model_copy(update={"embedding": embedding, "metrics": {}})


def _whitened_again(
    config: ExponentConfig, checkpoint: "Checkpoint", document: "Document", processes: "Processes"
) -> "Document":
    from trainer.finishing.fit_whitening import whiten_on
    from trainer.inputs.labels import read_photos

    before = checkpoint.document.embedding.whitening
    return whiten_on(
        checkpoint.model,
        document,
        read_photos(config.whiten, say=say),
        dim=before.out if before else None,
        power=before.power if before else WHITEN_POWER,
        floor=before.floor if before else WHITEN_FLOOR,
        processes=processes,
        say=say,
    )


def main() -> int:
    """Find the exponents that the flags ask for and print the new checkpoint's path."""
    config = load_config(
        ExponentConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(find(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
