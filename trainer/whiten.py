"""Fit a whitening on photos and write a whitened checkpoint."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE
from trainer.settings_finish import WHITEN_FLOOR, WHITEN_POWER, WhitenFloor, WhitenPower
from trainer.speech import say

if TYPE_CHECKING:
    from multigrain.document import Document

PROG = "python -m trainer.whiten"


class WhitenConfig(Config):
    """Flags of the whitening."""

    model_config = ConfigDict(allow_inf_nan=False)

    checkpoint: Path = Field(description="checkpoint file to whiten")
    photos: list[Path] = Field(
        min_length=1,
        description="photos to fit it on, any source that training takes; repeatable",
    )
    size: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the model's input from now on, pooled with the exponent found for "
        "it; unset: the checkpoint's",
    )
    out: Path = Field(description="checkpoint file to write")
    dim: int | None = Field(
        default=None, ge=1, description="dimensions to keep; unset: at most a quarter of the photos"
    )
    power: WhitenPower = WHITEN_POWER
    floor: WhitenFloor = WHITEN_FLOOR
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the photos are embedded"
    )


def whiten(config: WhitenConfig) -> Path:
    """Write the whitened checkpoint and return its path.

    An earlier whitening is replaced. Its scores are no longer the model's and are dropped.
    """
    from multigrain.checkpoint import load_checkpoint, save_checkpoint
    from trainer.engine.processes import alone
    from trainer.finishing.exponent_use import set_exponent
    from trainer.finishing.fit_whitening import whiten_on
    from trainer.inputs.labels import read_photos

    check_out_file(config.out)
    checkpoint = load_checkpoint(config.checkpoint)
    processes = alone(config.device)
    checkpoint.model.to(processes.device)
    document = whiten_on(
        checkpoint.model,
        at_size(checkpoint.document, config.size),
        read_photos(config.photos, say=say),
        dim=config.dim,
        power=config.power,
        floor=config.floor,
        processes=processes,
        say=say,
    )
    set_exponent(checkpoint.model, document.pooling.p)
    save_checkpoint(config.out, checkpoint.model, document)
    return config.out


def at_size(document: "Document", size: int | None) -> "Document":
    """Return the document for photos of this size, without the scores of another."""
    if size is None:
        return document.model_copy(update={"metrics": {}})
    pooling = document.pooling
    if pooling.p is not None and size not in pooling.p_by_size:
        say(
            f"no exponent was found for size {size}: pooled with the trained {pooling.p:g}; "
            f"python -m trainer.exponent --size {size} finds one"
        )
    preprocessing = document.preprocessing.model_copy(update={"size": size})
    return document.model_copy(update={"preprocessing": preprocessing, "metrics": {}})


def main() -> int:
    """Whiten the checkpoint that the flags name and print the new one's path."""
    config = load_config(
        WhitenConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(whiten(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
