"""Which engine embeds on this machine: named by the caller, or measured once and remembered."""

import json
import logging
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from multigrain.checkpoint import Checkpoint
from multigrain.engine_openvino import OpenVINOEngine, has_native_bf16
from multigrain.engine_torch import TorchEngine
from multigrain.errors import MultiGrainError
from multigrain.files import atomic_write_text

logger = logging.getLogger(__name__)

_NUM_TIMED_PHOTOS = 8
_NUM_RUNS = 5
_NUM_COMPARED_PHOTOS = 2
# A converted graph that disagrees with torch by more than this computes something else.
_MIN_CONVERSION_COSINE = {"fp32": 0.9999, "bf16": 0.9}


class DeviceError(MultiGrainError):
    """A device or an engine that was asked for and is not there."""


class DeviceMemoryError(DeviceError):
    """The device has no memory left for even one photo."""


class Engine(Protocol):
    """Pixels to unit vectors, on one device in one precision."""

    name: str
    precision: str

    def infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [N, H, W, 3] of one shape -> unit float32 [N, E]; one caller at a time."""
        ...


def resolve_device(device: str) -> str:
    """`auto` -> cuda where there is one, else cpu; raises DeviceError for an absent cuda."""
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise DeviceError(f"device {device!r}: choose auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(
            f"device {device!r}: no CUDA device is visible; use cpu or auto, or see what hides it "
            "(driver, CUDA_VISIBLE_DEVICES)"
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def open_engine(
    checkpoint: Checkpoint,
    *,
    device: str,
    engine: str,
    precision: str,
    num_threads: int,
    cache_dir: Path,
) -> Engine:
    """The engine asked for; `auto` measures both CPU engines once and keeps the faster.

    `device` is a resolved one. `precision` auto is bf16 where the hardware computes in it,
    fp32 elsewhere. Raises DeviceError for an engine that is not installed or does not run on
    the device.
    """
    if engine not in ("auto", "openvino", "torch"):
        raise DeviceError(f"engine {engine!r}: choose auto, openvino or torch")
    if precision not in ("auto", "bf16", "fp32"):
        raise DeviceError(f"precision {precision!r}: choose auto, bf16 or fp32")
    if device != "cpu":
        if engine == "openvino":
            raise DeviceError(f"engine openvino runs on the CPU, the device is {device}")
        return TorchEngine(checkpoint.model, device=device, precision=_cuda_precision(precision))
    torch.set_num_threads(num_threads)
    has_openvino = find_spec("openvino") is not None
    if engine == "openvino" and not has_openvino:
        raise DeviceError(
            "engine openvino is not installed: pip install 'multigrain-retrieval[cpu]'"
        )
    if precision == "auto":
        precision = "bf16" if has_openvino and has_native_bf16() else "fp32"
    cpu = _CpuEngines(checkpoint, precision, num_threads, cache_dir)
    if engine == "torch" or not has_openvino:
        return cpu.torch()
    return cpu.openvino() if engine == "openvino" else cpu.faster()


def _cuda_precision(precision: str) -> str:
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_bf16_supported() else "fp32"


class _CpuEngines:
    """The two engines of a CPU, and the record of which is faster here."""

    def __init__(
        self, checkpoint: Checkpoint, precision: str, num_threads: int, cache_dir: Path
    ) -> None:
        self._checkpoint = checkpoint
        self._precision = precision
        self._num_threads = num_threads
        key = f"{checkpoint.fingerprint[:16]}-openvino-{_version('openvino')}"
        self._graph_file = cache_dir / key / "model.xml"
        self._choice_file = cache_dir / f"{key}.choice.json"

    def torch(self) -> Engine:
        return TorchEngine(self._checkpoint.model, device="cpu", precision=self._precision)

    def openvino(self) -> Engine:
        """The converted model; raises DeviceError when it computes something else."""
        converted = self._checked()
        if converted is None:
            raise DeviceError(
                f"OpenVINO does not compute this model ({self._checkpoint.model.backbone.name}) "
                f"as torch does in all of its shapes: use engine torch"
            )
        return converted

    def faster(self) -> Engine:
        """The engine recorded for this machine, or the faster of both, which is recorded."""
        chosen = self._recorded().get(self._machine())
        if chosen == "torch":
            return self.torch()
        try:
            converted = self._checked()
            if converted is not None and chosen == "openvino":
                return converted
            reference = self.torch()
            winner = reference if converted is None else self._measure(reference, converted)
        except RuntimeError as error:  # what OpenVINO raises for an operation it does not know
            logger.warning("OpenVINO cannot run this model, torch does: %s", error)
            return self.torch()
        self._record(winner.name)
        return winner

    def _checked(self) -> Engine | None:
        """The converted model, or None, and no graph is kept, when it computes something else.

        A graph counts as checked by a mark in its folder alone, written once it has agreed with
        torch: a process that ends between conversion and comparison leaves an unchecked one.
        """
        converted = self._converted()
        mark = self._graph_file.with_name(f"checked-{self._precision}")
        if mark.exists():
            return converted
        agrees = False
        try:
            agrees = self._agree(self.torch(), converted)
        finally:
            if not agrees:
                shutil.rmtree(self._graph_file.parent, ignore_errors=True)
        if agrees and self._graph_file.exists():
            try:
                atomic_write_text(mark, "")
            except OSError as error:
                logger.warning("cannot keep that the model is checked: %s", error)
        return converted if agrees else None

    def _converted(self) -> Engine:
        return OpenVINOEngine.open(
            self._checkpoint.model,
            shape=self._shapes()[0],
            precision=self._precision,
            num_threads=self._num_threads,
            cached=self._graph_file,
        )

    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return self._checkpoint.document.preprocessing.shapes()

    def _agree(self, reference: Engine, converted: Engine) -> bool:
        """Whether both compute the same in every shape that photos are prepared to."""
        for shape in self._shapes():
            pixels = _noise(_NUM_COMPARED_PHOTOS, shape)
            cosine = float((reference.infer(pixels) * converted.infer(pixels)).sum(axis=1).min())
            if not cosine >= _MIN_CONVERSION_COSINE[self._precision]:
                logger.warning(
                    "the converted model disagrees with torch (cosine %.4f at %d x %d): torch",
                    cosine,
                    *shape,
                )
                return False
        return True

    def _measure(self, reference: Engine, converted: Engine) -> Engine:
        pixels = _noise(_NUM_TIMED_PHOTOS, self._shapes()[0])
        # In turn, and each one's best: a busy moment of the machine must not choose.
        runs = [
            (_seconds(reference, pixels), _seconds(converted, pixels)) for _ in range(_NUM_RUNS)
        ]
        torch_seconds, openvino_seconds = (min(times) for times in zip(*runs, strict=True))
        logger.info(
            "embedding %d photos: torch %.3f s, OpenVINO %.3f s",
            len(pixels),
            torch_seconds,
            openvino_seconds,
        )
        return converted if openvino_seconds < torch_seconds else reference

    def _machine(self) -> str:
        parts = (_cpu_name(), self._num_threads, self._precision, torch.__version__)
        return " / ".join(str(part) for part in parts)

    def _recorded(self) -> dict[str, str]:
        try:
            record = json.loads(self._choice_file.read_text())
        except (OSError, ValueError):  # absent or damaged: measured again
            return {}
        return record if isinstance(record, dict) else {}

    def _record(self, name: str) -> None:
        record = {**self._recorded(), self._machine(): name}
        try:
            atomic_write_text(self._choice_file, json.dumps(record, indent=1))
        except OSError as error:
            logger.warning("cannot keep the choice of engine: %s", error)


def _noise(num_photos: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num_photos, *shape, 3), dtype=np.uint8)


def _seconds(engine: Engine, pixels: npt.NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    engine.infer(pixels)
    return time.perf_counter() - start


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    facts = [
        line.split(":", 1)[1].strip() for line in lines if line.startswith(("model", "stepping"))
    ]
    return " ".join(dict.fromkeys(facts))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
