"""Draw the objects and backgrounds of the drawn photo collection with Pillow."""

import colorsys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Fill: TypeAlias = "Colour | Image.Image"

CANVAS_SIDE = 256  # pixels of the square an object is drawn on, before the camera sees it
DOT_LEVEL = 0.3  # of a wave of height 1: dots smaller than their gaps


class Look(NamedTuple):
    """What makes one instance itself: colours, a texture and proportions."""

    body: Image.Image  # texture, CANVAS_SIDE square
    accent: Colour
    detail: Colour
    dark: Colour
    proportions: tuple[float, ...]  # four numbers in [0, 1]


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return an RGB colour in 0..255 from hue (wraps around), saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def texture(rng: np.random.Generator, first: Colour, second: Colour) -> Image.Image:
    """Return stripes, dots, checks, rings or a gradient of two colours, CANVAS_SIDE square."""
    rows, columns = np.mgrid[0:CANVAS_SIDE, 0:CANVAS_SIDE].astype(np.float32) / CANVAS_SIDE
    angle, turns = rng.uniform(0, np.pi), np.float32(2 * np.pi * rng.uniform(5, 14))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = columns * cosine + rows * sine, rows * cosine - columns * sine
    match int(rng.integers(5)):
        case 0:
            pattern = np.sin(turns * along) > 0
        case 1:
            pattern = np.sin(turns * along) * np.sin(turns * across) > DOT_LEVEL
        case 2:
            pattern = np.sin(turns * along) * np.sin(turns * across) > 0
        case 3:
            pattern = np.sin(turns * np.hypot(rows - 0.5, columns - 0.5)) > 0
        case _:
            pattern = np.clip(along, 0, 1)
    share = pattern.astype(np.float32)[..., None]
    mixed = share * np.array(first, np.float32) + (1 - share) * np.array(second, np.float32)
    return Image.fromarray(mixed.round().astype(np.uint8))


def look(rng: np.random.Generator, *, class_hue: float) -> Look:
    """Draw an instance's look; its hues stay in the neighbourhood of the class's hue."""
    hue = class_hue + rng.uniform(-0.2, 0.2)
    first = colour(hue, rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.95))
    second = colour(hue + rng.uniform(0.08, 0.5), rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.0))
    return Look(
        body=texture(rng, first, second),
        accent=colour(rng.uniform(), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95)),
        detail=colour(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.75, 1.0)),
        dark=colour(hue, 0.5, rng.uniform(0.15, 0.35)),
        proportions=tuple(float(value) for value in rng.uniform(size=4)),
    )


class Canvas:
    """A transparent square drawn on in unit coordinates, x to the right and y downwards."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (CANVAS_SIDE, CANVAS_SIDE))

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        """Fill a polygon."""
        self._paint(fill, lambda pen: pen.polygon([_pixel(point) for point in points], fill=255))

    def ellipse(self, centre: Point, radii: Point, fill: Fill) -> None:
        """Fill an upright ellipse."""
        (x, y), (rx, ry) = centre, radii
        box = (_pixel((x - rx, y - ry)), _pixel((x + rx, y + ry)))
        self._paint(fill, lambda pen: pen.ellipse(box, fill=255))

    def rectangle(self, left_top: Point, right_bottom: Point, fill: Fill) -> None:
        """Fill an upright rectangle."""
        (left, top), (right, bottom) = left_top, right_bottom
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def ring(self, centre: Point, radius: float, width: float, fill: Fill) -> None:
        """Draw a circle's outline."""
        (x, y), pixels = centre, max(1, round(width * CANVAS_SIDE))
        box = (_pixel((x - radius, y - radius)), _pixel((x + radius, y + radius)))
        self._paint(fill, lambda pen: pen.ellipse(box, outline=255, width=pixels))

    def _paint(self, fill: Fill, shape: Callable[[ImageDraw.ImageDraw], None]) -> None:
        mask = Image.new("L", self.image.size)
        shape(ImageDraw.Draw(mask))
        self.image.paste(fill, (0, 0, *self.image.size), mask)


def _pixel(point: Point) -> Point:
    return point[0] * CANVAS_SIDE, point[1] * CANVAS_SIDE


def _house(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    top, roof = 0.42 - 0.1 * a, 0.12 + 0.1 * b
    canvas.rectangle((0.18, top), (0.82, 0.9), look.body)
    canvas.polygon([(0.1, top), (0.5 + 0.2 * (c - 0.5), roof - 0.02), (0.9, top)], look.accent)
    canvas.rectangle((0.3 + 0.2 * d, 0.65), (0.42 + 0.2 * d, 0.9), look.dark)
    for x in (0.24, 0.66):
        canvas.rectangle((x, top + 0.1), (x + 0.11, top + 0.22), look.detail)


def _tree(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.rectangle((0.46 - 0.03 * a, 0.5), (0.54 + 0.03 * a, 0.93), look.dark)
    for x, y, r in ((0.5, 0.28, 0.2), (0.33 - 0.06 * b, 0.45, 0.17), (0.67 + 0.06 * c, 0.45, 0.17)):
        canvas.ellipse((x, y), (r + 0.05 * d, r), look.body)
    for x, y in ((0.4, 0.3), (0.6, 0.42), (0.5, 0.2), (0.3, 0.47), (0.7, 0.38)):
        canvas.ellipse((x, y), (0.03, 0.03), look.accent)


def _boat(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.polygon([(0.08, 0.7), (0.92, 0.7), (0.78 - 0.1 * a, 0.9), (0.22, 0.9)], look.accent)
    canvas.rectangle((0.48, 0.1), (0.51, 0.7), look.dark)
    canvas.polygon([(0.53, 0.12), (0.53, 0.64), (0.75 + 0.15 * b, 0.64)], look.body)
    canvas.polygon([(0.46, 0.2 + 0.1 * c), (0.46, 0.64), (0.22 + 0.1 * d, 0.64)], look.detail)


def _car(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    roof = 0.3 + 0.12 * a
    canvas.polygon([(0.24, 0.55), (0.34, roof), (0.62 + 0.1 * b, roof), (0.8, 0.55)], look.detail)
    canvas.rectangle((0.06, 0.53), (0.94, 0.75), look.body)
    canvas.rectangle((0.06, 0.6), (0.94, 0.62 + 0.03 * c), look.accent)
    for x in (0.26, 0.74):
        canvas.ellipse((x, 0.76), (0.1 + 0.02 * d, 0.1 + 0.02 * d), look.dark)
        canvas.ellipse((x, 0.76), (0.045, 0.045), look.detail)


def _cup(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.ring((0.76, 0.52), 0.13 + 0.04 * a, 0.05, look.accent)
    narrow = 0.08 * b
    canvas.polygon(
        [(0.2, 0.25), (0.74, 0.25), (0.74 - narrow, 0.88), (0.2 + narrow, 0.88)], look.body
    )
    canvas.ellipse((0.47, 0.25), (0.27, 0.06 + 0.02 * c), look.dark)
    canvas.rectangle((0.2 + narrow, 0.8 - 0.06 * d), (0.74 - narrow, 0.86), look.accent)


def _flower(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.rectangle((0.485, 0.45), (0.515, 0.96), colour(0.33, 0.6, 0.45))
    canvas.ellipse((0.6, 0.78), (0.1, 0.03 + 0.03 * a), colour(0.33, 0.6, 0.55))
    num_petals = 5 + round(5 * b)
    for angle in np.linspace(0, 2 * np.pi, num_petals, endpoint=False):
        centre = (0.5 + 0.2 * float(np.cos(angle)), 0.36 + 0.2 * float(np.sin(angle)))
        canvas.ellipse(centre, (0.09 + 0.04 * c, 0.09 + 0.04 * c), look.body)
    canvas.ellipse((0.5, 0.36), (0.08 + 0.05 * d, 0.08 + 0.05 * d), look.accent)


def _fish(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.polygon([(0.7, 0.5), (0.94, 0.3 - 0.08 * a), (0.94, 0.7 + 0.08 * a)], look.accent)
    canvas.polygon([(0.35, 0.4), (0.6, 0.14 + 0.1 * b), (0.66, 0.42)], look.accent)
    canvas.ellipse((0.42, 0.5), (0.34, 0.17 + 0.08 * c), look.body)
    canvas.ellipse((0.22, 0.46), (0.05, 0.05), look.detail)
    canvas.ellipse((0.21 + 0.02 * d, 0.46), (0.025, 0.025), look.dark)


def _tower(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    wide, top = 0.14 + 0.08 * a, 0.2 + 0.1 * b
    canvas.rectangle((0.5 - wide, top), (0.5 + wide, 0.95), look.body)
    canvas.polygon([(0.48 - wide, top), (0.5, 0.03), (0.52 + wide, top)], look.accent)
    num_floors = 3 + round(3 * c)
    for y in np.linspace(top + 0.06, 0.82, num_floors):
        for x in (0.5 - wide * 0.55, 0.5 + wide * 0.55):
            canvas.ellipse((x, float(y)), (0.03, 0.03 + 0.015 * d), look.detail)


def _bottle(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    wide, shoulder = 0.13 + 0.09 * a, 0.36 + 0.1 * b
    canvas.rectangle((0.44, 0.06), (0.56, 0.4), look.dark)
    canvas.rectangle((0.43, 0.04), (0.57, 0.1 + 0.04 * d), look.accent)
    canvas.ellipse((0.5, shoulder), (wide, 0.1), look.dark)
    canvas.rectangle((0.5 - wide, shoulder), (0.5 + wide, 0.94), look.dark)
    canvas.rectangle((0.5 - wide, 0.5), (0.5 + wide, 0.74 + 0.1 * c), look.body)


def _balloon(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    canvas.polygon([(0.3, 0.5), (0.7, 0.5), (0.56, 0.8), (0.44, 0.8)], look.dark)
    canvas.ellipse((0.5, 0.36), (0.26 + 0.08 * a, 0.28 + 0.04 * b), look.body)
    canvas.rectangle((0.2, 0.33), (0.8, 0.36 + 0.05 * c), look.accent)
    canvas.rectangle((0.43, 0.8), (0.57, 0.9 + 0.05 * d), look.detail)


def _butterfly(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    for side in (-1, 1):
        canvas.ellipse((0.5 + side * 0.21, 0.36), (0.2, 0.17 + 0.08 * a), look.body)
        canvas.ellipse((0.5 + side * 0.17, 0.66), (0.15, 0.11 + 0.07 * b), look.accent)
        canvas.ellipse((0.5 + side * 0.24, 0.34), (0.05 + 0.03 * c, 0.06), look.detail)
    canvas.ellipse((0.5, 0.5), (0.03 + 0.015 * d, 0.3), look.dark)


def _lamp(canvas: Canvas, look: Look) -> None:
    a, b, c, d = look.proportions
    top, low = 0.1 + 0.08 * a, 0.28 + 0.06 * b
    canvas.rectangle((0.48, 0.4), (0.52, 0.9), look.dark)
    canvas.polygon(
        [(0.5 - top, 0.1), (0.5 + top, 0.1), (0.5 + low, 0.48), (0.5 - low, 0.48)], look.body
    )
    canvas.ellipse((0.5, 0.9), (0.16 + 0.08 * c, 0.05), look.accent)
    canvas.ellipse((0.5, 0.66), (0.05 + 0.04 * d, 0.08), look.accent)


_DRAWERS: dict[str, Callable[[Canvas, Look], None]] = {
    "house": _house,
    "cup": _cup,
    "fish": _fish,
    "tree": _tree,
    "car": _car,
    "bottle": _bottle,
    "butterfly": _butterfly,
    "boat": _boat,
    "lamp": _lamp,
    "flower": _flower,
    "tower": _tower,
    "balloon": _balloon,
}
OBJECTS = tuple(_DRAWERS)


def draw_object(kind: int, look: Look) -> Image.Image:
    """Return the object of a kind (0 .. len(OBJECTS) - 1) in an instance's look, RGBA."""
    canvas = Canvas()
    _DRAWERS[OBJECTS[kind]](canvas, look)
    return canvas.image
