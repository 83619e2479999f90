"""Fixtures that several areas share: drawn photos, a tiny checkpoint, the real data's folder."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from multigrain.checkpoint import save_checkpoint
from multigrain.document import plain_document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing

Draw = Callable[[int], Image.Image]

# The files that take longest, the longest first: begun last, one would run on alone.
LONGEST = (
    "test_readme.py",
    "test_trainer_run.py",
    "test_service_process.py",
    "test_index_ray.py",
    "test_trainer_convert.py",
    "test_trainer_recipes.py",
    "test_index_resume.py",
    "test_trainer_export.py",
    "test_trainer_resume.py",
    "test_trainer_processes.py",
    "test_index_changes.py",
    "test_trainer_engine.py",
    "test_index_memory.py",
    "test_service_openapi.py",
)

# How long an example takes is the machine's affair.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# pytorch-metric-learning imports this module, which replaces faiss's own methods by others that
# lose arguments; the tests of the index run in the same process.
sys.modules.setdefault("faiss.contrib.torch_utils", ModuleType("faiss.contrib.torch_utils"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, the others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Converted models of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two cores are not fought over, and sums are rounded alike whichever test ran before.

    faiss shares torch's threads and sets their number.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos, where there is one."""
    folder = os.environ.get("MULTIGRAIN_TEST_DATA")
    if not folder:
        pytest.skip("MULTIGRAIN_TEST_DATA does not name the folder of real photos")
    return Path(folder)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Draw a smooth random picture, 96 x 72, another for each seed."""

    def draw_one(seed: int) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)

    return draw_one


@pytest.fixture(scope="session")
def jpeg(draw: Draw) -> Callable[[int], bytes]:
    """Draw a picture and encode it as JPEG."""

    def encode(seed: int) -> bytes:
        buffer = io.BytesIO()
        draw(seed).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a SqueezeNet with seeded random weights, 64 px, no whitening."""
    torch.manual_seed(0)
    document = plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=Preprocessing(size=64, rule="whole"),
        p=3.0,
    )
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, MultiGrain.build(document), document)
    return path
