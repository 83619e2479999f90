"""Edited views: every kind, any size, fixed by the seed."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from multigrain.views import VIEW_KINDS, ViewError, edited_view


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_a_view_is_fixed_by_its_seed_and_differs_from_the_photo(
    kind: str, draw: Callable[[int], Image.Image]
) -> None:
    """Same seed, same pixels; the edit changes them."""
    image = draw(3)
    first, again = (edited_view(image, kind=kind, seed=5) for _ in range(2))
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert first.size != image.size or not np.array_equal(first, image)


@pytest.mark.parametrize("kind", VIEW_KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_odd_sizes_can_be_edited(kind: str, size: tuple[int, int]) -> None:
    """One-pixel sides stay at least one pixel."""
    assert min(edited_view(Image.new("RGB", size), kind=kind, seed=0).size) >= 1


def test_an_unknown_kind_is_named() -> None:
    """The message lists the kinds there are."""
    with pytest.raises(ViewError, match="choose of crop, rotate"):
        edited_view(Image.new("RGB", (4, 4)), kind="sepia", seed=0)
