"""Draw what training sees: a row a photo, the photo itself and then views of it.

    python -m trainer.preview --data FOLDER --out preview.png --augment strong

Takes every flag of training, so that the --config of a run serves; those that make no views are of
no effect here. The views come through the very code that training runs.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.settings import TrainConfig

if TYPE_CHECKING:
    from PIL import Image

    from multigrain.transforms import Pixels

PROG = "python -m trainer.preview"
GAP = 4  # pixels between pictures


class PreviewConfig(TrainConfig):
    """Flags of the preview: those of training, and the picture's own."""

    out: Path = Field(description="picture to write, .png")
    num_photos: int = Field(default=8, ge=1, description="rows")
    columns: int = Field(default=6, ge=1, description="views of each photo")

    @model_validator(mode="after")
    def _out_is_a_picture(self) -> Self:
        if self.out.suffix.lower() != ".png":
            raise ValueError(
                f"--out {self.out} is no .png: the --config of a run names the run's own folder, "
                f"so give --out preview.png beside it"
            )
        return self


def draw_preview(config: PreviewConfig) -> Path:
    """Write the picture and return its path; raises MultiGrainError for photos that fail."""
    import torch

    from multigrain.files import write_via_temporary
    from trainer.inputs.augment import Augmentation
    from trainer.inputs.data import device_part_of
    from trainer.inputs.labels import read_photos
    from trainer.inputs.loading import ViewsDataset, collate
    from trainer.inputs.sampler import Draw
    from trainer.speech import say

    check_out_file(config.out)
    photos = read_photos(config.data, say=say)
    augmentation = Augmentation(config.size, config.seed, area=(config.min_area, 1.0))
    dataset = ViewsDataset(photos, augmentation, num_views=config.columns)
    step = max(1, len(photos.names) // config.num_photos)
    chosen = range(0, len(photos.names), step)[: config.num_photos]
    batch = collate([dataset[Draw(0, photo_id)] for photo_id in chosen])
    prepared = device_part_of(config, seed=config.seed, rank=0)(batch, 0)
    views = prepared.pixels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows = views.reshape(len(chosen), config.columns, config.size, config.size, 3)
    # The photo that was read, which is the next one where a photo cannot be.
    read = batch.photo_ids[:: config.columns].tolist()
    originals = [photos.image(photo_id, min_side=config.size) for photo_id in read]
    with write_via_temporary(config.out) as temporary:
        _grid(originals, rows, config.size).save(temporary, "PNG")
    return config.out


def _grid(originals: "list[Image.Image]", rows: "Pixels", side: int) -> "Image.Image":
    """Put views [photos, columns, S, S, 3] beside their photos."""
    from PIL import Image, ImageOps

    width = (len(rows[0]) + 1) * (side + GAP) + GAP
    grid = Image.new("RGB", (width, len(rows) * (side + GAP) + GAP), (255, 255, 255))
    for number, (original, views) in enumerate(zip(originals, rows, strict=True)):
        top = GAP + number * (side + GAP)
        whole = ImageOps.pad(original, (side, side), color=(255, 255, 255))
        for place, picture in enumerate([whole, *(Image.fromarray(view) for view in views)]):
            grid.paste(picture, (GAP + place * (side + GAP), top))
    return grid


def main() -> int:
    """Draw the picture that the flags describe and print its path."""
    config = load_config(
        PreviewConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(draw_preview(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
