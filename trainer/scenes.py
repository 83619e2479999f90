"""A deterministic drawn photo collection: classes, instances of each, photos of each instance.

class = kind of object, its hues and its kind of background; instance = its own colours, texture
and proportions; photo = viewpoint, scale, place, background details, light, noise.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pydantic import Field

from multigrain.config import Config
from multigrain.program import load_config, run_main
from multigrain.progress import Progress
from trainer.inputs.drawing import CANVAS_SIDE, OBJECTS, colour, draw_object, look
from trainer.seeds import seed_of

JPEG_QUALITY = 88
PORTRAIT_SHARE = 0.3  # about a third, as in a real album
PROG = "python -m trainer.scenes"


class ScenesConfig(Config):
    """Flags of the drawn photo collection."""

    out: Path = Field(description="folder to write; one sub-folder a class")
    num_classes: int = Field(default=10, ge=1, description="number of classes")
    instances_per_class: int = Field(default=8, ge=1, description="instances of each class")
    photos_per_instance: int = Field(default=5, ge=1, description="photos of each instance")
    size: int = Field(default=320, ge=16, description="longest side of a photo, pixels")
    seed: int = Field(default=0, description="another seed draws another collection")


def draw_photo(
    class_index: int, instance_index: int, view_index: int, *, size: int, seed: int
) -> Image.Image:
    """Return one RGB photo, longest side `size` pixels, landscape or portrait (4:3 or 3:4).

    A pure function of its arguments: photos of one instance share its look, not their view.
    """
    thing = _instance(class_index, instance_index, seed)
    return _photo_of(thing, class_index, instance_index, view_index, size=size, seed=seed)


def draw_collection(
    out: Path,
    *,
    num_classes: int,
    instances_per_class: int,
    photos_per_instance: int,
    size: int,
    seed: int,
) -> Path:
    """Write `out/CC-OBJECT/OBJECT-III-view-VV.jpg` for every photo and return `out`.

    The same arguments write the same bytes; a file that exists is drawn again.
    """
    total = num_classes * instances_per_class * photos_per_instance
    progress = Progress(total, "photos")
    done = 0
    for kind, instance in np.ndindex(num_classes, instances_per_class):
        name = OBJECTS[kind % len(OBJECTS)]
        folder = out / f"{kind:02d}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        thing = _instance(kind, instance, seed)
        for view in range(photos_per_instance):
            buffer = io.BytesIO()
            photo = _photo_of(thing, kind, instance, view, size=size, seed=seed)
            photo.save(buffer, "JPEG", quality=JPEG_QUALITY)
            file = folder / f"{name}-{instance:03d}-view-{view:02d}.jpg"
            file.write_bytes(buffer.getvalue())
            done += 1
            progress.update(done)
    progress.close()
    return out


def _instance(class_index: int, instance_index: int, seed: int) -> Image.Image:
    # The golden ratio spreads the hues of any number of classes around the circle.
    class_hue = (class_index * 0.618034) % 1.0
    rng = np.random.default_rng(seed_of(seed, "instance", class_index, instance_index))
    return draw_object(class_index % len(OBJECTS), look(rng, class_hue=class_hue))


def _photo_of(
    thing: Image.Image, kind: int, instance: int, view: int, *, size: int, seed: int
) -> Image.Image:
    rng = np.random.default_rng(seed_of(seed, "view", kind, instance, view))
    long_side, short_side = size, max(1, size * 3 // 4)
    shape = (long_side, short_side)
    if rng.uniform() < PORTRAIT_SHARE:
        shape = (short_side, long_side)
    scene = _background(kind, shape, rng)
    seen = _through_camera(thing, shape, rng)
    scene.paste(seen, (0, 0), seen)
    return _in_light(scene, rng)


def _background(class_index: int, shape: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Sky over meadow or sea, wall over table, or a street; horizon and details vary."""
    width, height = shape
    upper_hue, lower_hue = ((0.56, 0.3), (0.55, 0.6), (0.1, 0.07), (0.62, 0.08))[class_index % 4]
    horizon = rng.uniform(0.45, 0.7)
    upper = np.array(colour(upper_hue + rng.uniform(-0.03, 0.03), rng.uniform(0.1, 0.45), 0.92))
    lower = np.array(colour(lower_hue + rng.uniform(-0.04, 0.04), rng.uniform(0.2, 0.6), 0.6))
    rows = np.linspace(0, 1, height)[:, None, None]
    shade = 1 - 0.25 * np.abs(rows - horizon)
    pixels = np.where(rows < horizon, upper, lower) * shade
    tiled = np.broadcast_to(pixels, (height, width, 3)).round().astype(np.uint8)
    scene = Image.fromarray(np.ascontiguousarray(tiled))
    _clutter(scene, horizon, rng)
    return scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0) * width / 320))


def _clutter(scene: Image.Image, horizon: float, rng: np.random.Generator) -> None:
    pen, (width, height) = ImageDraw.Draw(scene), scene.size
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.02, 0.12) * width
        fill = colour(rng.uniform(), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.95))
        box = (x - radius, y - radius, x + radius, y + radius * rng.uniform(0.3, 1.0))
        if y > horizon * height and rng.uniform() < 0.5:  # noqa: PLR2004 - a coin
            pen.rectangle(box, fill=fill)
        else:
            pen.ellipse(box, fill=fill)


def _through_camera(
    thing: Image.Image, shape: tuple[int, int], rng: np.random.Generator
) -> Image.Image:
    """Place the object: random scale, position, small rotation, mirror-free perspective."""
    width, height = shape
    side = rng.uniform(0.75, 1.0) * min(width, height)
    angle = np.deg2rad(rng.uniform(-18, 18))
    scale = CANVAS_SIDE / side
    centre_x = width * rng.uniform(0.4, 0.6)
    centre_y = height * rng.uniform(0.44, 0.58)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    stretch = rng.uniform(0.85, 1.15)
    tilt_x, tilt_y = rng.uniform(-0.3, 0.3, size=2) / max(width, height)
    half = CANVAS_SIDE / 2
    # The canvas point seen at photo pixel (x, y), relative to the object's centre:
    # (a dx + b dy) / (1 + tilt . d) + half; Pillow wants it with the constant below scaled to 1.
    below = 1 - tilt_x * centre_x - tilt_y * centre_y
    top_row = (a * stretch + half * tilt_x, b + half * tilt_y)
    low_row = (-b * stretch + half * tilt_x, a + half * tilt_y)
    c = half * below - a * stretch * centre_x - b * centre_y
    f = half * below + b * stretch * centre_x - a * centre_y
    coefficients = tuple(value / below for value in (*top_row, c, *low_row, f, tilt_x, tilt_y))
    method = Image.Transform.PERSPECTIVE
    return thing.transform(shape, method, coefficients, Image.Resampling.BILINEAR)


def _in_light(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change exposure, colour temperature and the light's direction; add sensor noise."""
    pixels = np.asarray(scene, np.float32)
    height, width = pixels.shape[:2]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    light = (
        1
        + rows * np.float32(strength * np.sin(angle))
        + columns * np.float32(strength * np.cos(angle))
    )
    warmth, exposure = rng.uniform(-0.06, 0.06), rng.uniform(0.8, 1.12)
    gains = np.array([1 + warmth, 1.0, 1 - warmth], np.float32) * np.float32(exposure)
    noise = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(1, 5))
    lit = pixels * light[..., None] * gains + noise
    return Image.fromarray((lit.clip(0, 255) + 0.5).astype(np.uint8))


def main() -> int:
    """Draw the collection that the flags describe and print its folder."""
    config = load_config(
        ScenesConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    fields = config.model_dump(include=set(ScenesConfig.model_fields))
    print(draw_collection(**fields))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
