"""Small drawn collections and settings for the trainer's tests."""

from pathlib import Path

from trainer.scenes import draw_collection


def draw_small(folder: Path, *, num_classes: int = 3, instances: int = 3, photos: int = 2) -> Path:
    """Draw a few small photos."""
    return draw_collection(
        folder,
        num_classes=num_classes,
        instances_per_class=instances,
        photos_per_instance=photos,
        size=64,
        seed=0,
    )


def draw_flat(folder: Path, *, num_photos: int = 12) -> Path:
    """Draw photos into one folder without classes."""
    drawn = draw_small(
        folder.with_name(folder.name + "-drawn"), num_classes=num_photos // 3, instances=3, photos=1
    )
    folder.mkdir()
    for number, path in enumerate(sorted(drawn.rglob("*.jpg"))):
        path.rename(folder / f"photo-{number:03d}.jpg")
    return folder
