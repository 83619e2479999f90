"""The embedder: the same photo gives the same vector on every engine and in every batch."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multigrain.cache_folder import default_cache_dir
from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.embedder import Embedder
from multigrain.engine import (
    DeviceError,
    DeviceMemoryError,
    open_engine,
    resolve_device,
)
from multigrain.errors import EmbeddingError
from multigrain.photo import PhotoError

TOLERANCE = 1 - 1e-5


def min_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum(axis=1).min())


@pytest.fixture(scope="module", params=["torch", "openvino"])
def embedder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Embedder:
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="the cpu extra is not installed")
    return Embedder.open(
        tiny_checkpoint, device="cpu", engine=request.param, precision="fp32", num_threads=1
    )


@pytest.fixture(scope="module")
def photos(jpeg: Callable[[int], bytes], draw: Callable[[int], Image.Image]) -> list[object]:
    upright = [jpeg(seed) for seed in range(5)]
    return [
        *upright,
        draw(7),
        draw(8).transpose(Image.Transpose.ROTATE_90),
        draw(9).resize((50, 50)),
    ]


def test_rows_are_unit_and_float32(embedder: Embedder, photos: list[object]) -> None:
    """One row of D values a photo."""
    rows = embedder.embed(photos)
    assert rows.dtype == np.float32
    assert rows.shape == (len(photos), embedder.dim)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(photos)), abs=1e-5)


def test_alone_or_in_any_batch_a_photo_has_the_same_vector(
    embedder: Embedder, photos: list[object]
) -> None:
    """Mixed shapes, another order and another batch size change nothing beyond 1e-5."""
    together = embedder.embed(photos)
    alone = np.concatenate([embedder.embed([photo]) for photo in photos])
    pixels = [
        embedder.read(p).pixels if isinstance(p, bytes) else embedder.preprocessing.prepare(p)
        for p in photos
    ]
    in_threes = embedder.embed_pixels(pixels[::-1], batch_size=3)[::-1]
    assert min_cosine(together, alone) >= TOLERANCE
    assert min_cosine(together, in_threes) >= TOLERANCE


def test_every_engine_agrees_with_the_model_itself(
    embedder: Embedder, tiny_checkpoint: Path, photos: list[object]
) -> None:
    """Folded batch norm, conversion and layout leave the fp32 vector as the model gives it."""
    import torch

    model = load_checkpoint(tiny_checkpoint).model
    for photo in photos:
        pixels = (
            embedder.read(photo).pixels
            if isinstance(photo, bytes)
            else embedder.preprocessing.prepare(photo)
        )
        with torch.inference_mode():
            expected = model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).embedding.numpy()
        assert min_cosine(embedder.embed_pixels([pixels]), expected) >= TOLERANCE


def test_a_path_its_bytes_and_its_image_have_one_vector(
    embedder: Embedder, jpeg: Callable[[int], bytes], tmp_path: Path
) -> None:
    """The source of a photo does not matter."""
    data = jpeg(1)
    (tmp_path / "a.png").write_bytes(data)
    rows = embedder.embed([data, tmp_path / "a.png"])
    assert np.array_equal(rows[0], rows[1])


def test_no_photos_give_no_rows(embedder: Embedder) -> None:
    """An empty list is answered by an empty array of the right width."""
    assert embedder.embed([]).shape == (0, embedder.dim)


def test_a_bad_photo_raises_its_code(embedder: Embedder) -> None:
    """The error is the photo's own."""
    with pytest.raises(PhotoError, match="no photo of an accepted format"):
        embedder.embed([b"no photo"])


def test_a_model_that_returns_nan_is_caught(
    tiny_checkpoint: Path, tmp_path: Path, jpeg: Callable[[int], bytes]
) -> None:
    """Broken weights raise, and no NaN leaves the embedder."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.pool.p.fill_(float("nan"))
    save_checkpoint(tmp_path / "nan.safetensors", checkpoint.model, checkpoint.document)
    broken = Embedder.open(tmp_path / "nan.safetensors", engine="torch", device="cpu")
    with pytest.raises(EmbeddingError, match=r"photos \[0\]"):
        broken.embed([jpeg(0)])


def test_the_faster_engine_is_measured_once_and_remembered(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The record names an engine for this machine, and the next start follows it."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    first = Embedder.open(tiny_checkpoint, device="cpu", cache_dir=tmp_path)
    (record_file,) = tmp_path.glob("*.choice.json")
    record = json.loads(record_file.read_text())
    assert list(record.values()) == [first.engine]
    other = {"openvino": "torch", "torch": "openvino"}[first.engine]
    record_file.write_text(json.dumps(dict.fromkeys(record, other)))
    assert Embedder.open(tiny_checkpoint, device="cpu", cache_dir=tmp_path).engine == other


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_a_damaged_cache_is_made_again(
    tiny_checkpoint: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stored model that cannot be read is converted once more, with one log line."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")

    def open_it() -> Embedder:
        return Embedder.open(tiny_checkpoint, device="cpu", engine="openvino", cache_dir=tmp_path)

    open_it()
    (weights,) = tmp_path.rglob("model.bin")
    whole = weights.read_bytes()
    if damage == "removed":
        weights.unlink()
    else:
        weights.write_bytes(whole[:100] if damage == "cut" else b"")
    open_it()
    assert "converting again" in caplog.text
    assert next(tmp_path.rglob("model.bin")).read_bytes() == whole


def test_a_graph_counts_as_checked_only_once_it_agreed(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a killed process left is compared again, and removed when it disagrees."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")

    def open_it(engine: str) -> Embedder:
        return Embedder.open(tiny_checkpoint, device="cpu", engine=engine, cache_dir=tmp_path)

    monkeypatch.setattr("multigrain.engine._NUM_TIMED_PHOTOS", 1)
    monkeypatch.setattr("multigrain.engine._NUM_RUNS", 1)
    open_it("auto")
    (record_file,) = tmp_path.glob("*.choice.json")
    record = json.loads(record_file.read_text())
    record_file.write_text(json.dumps(dict.fromkeys(record, "openvino")))
    agree = "multigrain.engine._CpuEngines._agree"
    monkeypatch.setattr(agree, lambda *_: pytest.fail("it was checked"))
    assert open_it("openvino").engine == open_it("auto").engine == "openvino"
    (mark,) = tmp_path.rglob("checked-*")
    mark.unlink()
    monkeypatch.setattr(agree, lambda *_: False)
    assert open_it("auto").engine == "torch"
    assert not list(tmp_path.rglob("model.xml"))
    with pytest.raises(DeviceError, match="use engine torch"):
        open_it("openvino")
    assert not list(tmp_path.rglob("model.xml"))


def test_a_damaged_record_of_engines_is_measured_again(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """JSON of another kind is no record."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    Embedder.open(tiny_checkpoint, device="cpu", cache_dir=tmp_path)
    (record_file,) = tmp_path.glob("*.choice.json")
    record_file.write_text("[1]")
    Embedder.open(tiny_checkpoint, device="cpu", cache_dir=tmp_path)
    assert isinstance(json.loads(record_file.read_text()), dict)


def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    """It sends nothing, and leaves no number for the user in the home folder."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    code = (
        "import sys; from multigrain.engine_openvino import has_native_bf16; has_native_bf16();"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    environ = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_cache_costs_a_line_and_nothing_else(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is converted in memory."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    (tmp_path / "file").write_text("in the way")
    opened = Embedder.open(
        tiny_checkpoint, device="cpu", engine="openvino", cache_dir=tmp_path / "file" / "cache"
    )
    assert opened.engine == "openvino"
    assert "cannot keep the converted model" in caplog.text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "tpu"}, "choose auto, cpu, cuda"),
        ({"device": "cuda:9"}, "no CUDA device"),
        ({"engine": "onnx"}, "choose auto, openvino or torch"),
        ({"precision": "fp16"}, "choose auto, bf16 or fp32"),
    ],
)
def test_a_device_or_engine_that_is_not_there_is_named(
    tiny_checkpoint: Path, asked: dict[str, str], message: str
) -> None:
    """A wrong choice is an error with the right ones."""
    import torch

    if asked.get("device", "").startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match=message):
        Embedder.open(tiny_checkpoint, **asked)  # type: ignore[arg-type]


def test_openvino_is_refused_on_cuda(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The CPU engine does not run on a GPU, and says so before CUDA is touched."""
    with pytest.raises(DeviceError, match="runs on the CPU"):
        open_engine(
            load_checkpoint(tiny_checkpoint),
            device="cuda",
            engine="openvino",
            precision="auto",
            num_threads=1,
            cache_dir=tmp_path,
        )


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are read through libc")
def test_an_engine_leaves_the_signal_stack_of_its_opener_alone(tiny_checkpoint: Path) -> None:
    """OpenVINO would set one and unmap it: the next Ctrl-C would be a segmentation fault."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    before = signal_stack()
    kept = Embedder.open(tiny_checkpoint, device="cpu", engine="openvino")
    assert (signal_stack(), kept.engine) == (before, "openvino")


def signal_stack() -> bytes:
    """The C library's `stack_t` of this thread: address, flags, size."""
    raw = ctypes.create_string_buffer(3 * ctypes.sizeof(ctypes.c_void_p))
    assert ctypes.CDLL(None).sigaltstack(None, raw) == 0
    return raw.raw


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` never fails."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto") == "cpu"


def test_the_cache_follows_the_environment() -> None:
    """XDG_CACHE_HOME is honoured, else the home folder is used."""
    assert default_cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/multigrain")
    assert default_cache_dir({}) == Path.home() / ".cache" / "multigrain"


def test_batches_are_padded_to_a_bucket_with_the_last_row() -> None:
    """On CUDA three photos run as four; what is added is dropped again."""
    import torch

    from multigrain.engine_torch import _padded

    batch = torch.arange(3).view(3, 1)
    assert _padded(batch).flatten().tolist() == [0, 1, 2, 2]
    assert _padded(torch.ones(100, 1)).shape == (100, 1)


class SmallDevice:
    """An engine on a device whose memory takes so many photos."""

    name, precision = "small", "fp32"

    def __init__(self, embedder: Embedder, room: int) -> None:
        self._infer = embedder._engine.infer
        self._room = room
        self.sizes = list[int]()

    def infer(self, pixels: np.ndarray) -> np.ndarray:
        """Embed, or be out of memory."""
        self.sizes.append(len(pixels))
        if len(pixels) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._infer(pixels)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    tiny_checkpoint: Path, draw: Callable[[int], Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    """The vectors are the same, and later batches are small at once; with no room it is said."""
    opened = Embedder.open(tiny_checkpoint, device="cpu", engine="torch", num_threads=1)
    pixels = [opened.preprocessing.prepare(draw(seed)) for seed in range(11)]
    device = SmallDevice(opened, room=3)
    small = Embedder(load_checkpoint(tiny_checkpoint), device, device="cuda:0")
    assert min_cosine(small.embed_pixels(pixels, 8), opened.embed_pixels(pixels, 8)) > TOLERANCE
    assert device.sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert "cuda:0 is out of memory with 4 photos at once: going on with 2" in caplog.text
    small.embed_pixels(pixels[:3], 8)
    assert device.sizes[8:] == [2, 1]
    full = Embedder(load_checkpoint(tiny_checkpoint), SmallDevice(opened, room=0), device="cuda:0")
    with pytest.raises(DeviceMemoryError, match="cuda:0 is out of memory for a single photo"):
        full.embed_pixels(pixels, 8)
