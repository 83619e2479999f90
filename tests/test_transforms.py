"""Preparing: shapes by the rule, and pixels that hold what the photo shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multigrain.transforms import Preprocessing


@pytest.mark.parametrize(
    ("rule", "size", "photo", "shape"),
    [
        ("crop", 224, (640, 480), (224, 224)),
        ("whole", 224, (640, 480), (192, 256)),
        ("whole", 224, (480, 640), (256, 192)),
        ("whole", 224, (500, 510), (224, 224)),
        ("whole", 224, (4000, 1), (192, 256)),
        ("whole", 225, (640, 480), (193, 257)),
        ("whole", 96, (640, 480), (96, 128)),
        ("whole", 96, (480, 640), (128, 96)),
        ("whole", 128, (640, 480), (96, 128)),
        ("whole", 32, (640, 480), (32, 32)),
    ],
)
def test_a_photo_gets_the_shape_of_its_aspect(
    rule: str, size: int, photo: tuple[int, int], shape: tuple[int, int]
) -> None:
    """Height and width by rule, size and the photo's width and height."""
    preprocessing = Preprocessing(rule=rule, size=size)  # type: ignore[arg-type]
    assert preprocessing.shape_of(*photo) == shape
    assert shape in preprocessing.shapes()


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    rule=st.sampled_from(["crop", "whole"]),
)
def test_any_size_is_prepared_to_a_shape_of_the_rule(width: int, height: int, rule: str) -> None:
    """From one pixel on, the result is uint8, contiguous and of a listed shape."""
    preprocessing = Preprocessing(rule=rule, size=64)  # type: ignore[arg-type]
    pixels = preprocessing.prepare(Image.new("RGB", (width, height), (9, 8, 7)))
    assert pixels.shape[:2] in preprocessing.shapes()
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.reshape(-1, 3).max(axis=0).tolist() == [9, 8, 7]


def test_crop_keeps_the_centre_and_whole_keeps_the_border() -> None:
    """A red frame round a photo is cut off by one rule and kept by the other."""
    image = Image.new("RGB", (200, 200), (255, 0, 0))
    image.paste((0, 0, 255), (10, 10, 190, 190))
    cropped = Preprocessing(rule="crop", size=64).prepare(image)
    whole = Preprocessing(rule="whole", size=64).prepare(image)
    assert cropped[..., 0].max() == 0
    assert whole[0, 0, 0] == 255


def test_equal_area_aspects_cost_the_same() -> None:
    """Every shape has the square's area within 3 %, so a batch of any costs the same."""
    preprocessing = Preprocessing(rule="whole", size=224)
    areas = [height * width / 224**2 for height, width in preprocessing.shapes()]
    assert areas == pytest.approx([1] * len(areas), abs=0.03)
