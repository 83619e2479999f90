"""The OpenVINO engine: GeM and L2 in the graph, uint8 in, dynamic batch and size."""

import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from multigrain.engine_torch import PooledUnit
from multigrain.files import fsync_file
from multigrain.model import MultiGrain

logger = logging.getLogger(__name__)

T = TypeVar("T")


def load_openvino() -> Any:
    """The module `openvino`, without its telemetry.

    Merely imported, it would tell a server of its makers so, and keep a number for this user in
    the home folder. Where its telemetry cannot be imported it puts a stub in its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def has_native_bf16() -> bool:
    """Whether this CPU computes in bf16 itself; elsewhere bf16 is emulated and slow."""
    openvino = load_openvino()

    def capabilities() -> Any:
        return openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    return "BF16" in _in_own_thread(capabilities)


def _in_own_thread(work: Callable[[], T]) -> T:
    """Call what loads OpenVINO's CPU plugin where it can do no harm.

    The plugin gives the thread that loads it a signal stack of its own and unmaps it in the
    end; with two of them the thread is left with one that is gone, and dies of its next signal.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="openvino") as thread:
        return thread.submit(work).result()


def convert(model: MultiGrain, shape: tuple[int, int] = (64, 64)) -> Any:
    """Trace the model into an OpenVINO graph: uint8 [N, H, W, 3] -> unit float32 [N, E].

    `shape` is the (height, width) traced with: a trunk that decides by the size of its map,
    as Swin does, is right only where it would decide the same. Goes through the PyTorch
    frontend itself, which takes a trace as it is.
    """
    openvino = load_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8)
    # The tracer and the frontend warn about each other's deprecations; neither is ours to mend.
    with torch.no_grad(), warnings.catch_warnings(), _plain_attention():
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(
            PooledUnit(model).eval(), example_input=(example,), skip_freeze=False
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    graph.reshape({0: openvino.PartialShape([-1, -1, -1, 3])})
    return graph


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep torch's fused attention path, which no frontend knows, out of a trace."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


class OpenVINOEngine:
    """A converted model, compiled for this CPU in latency mode with all its threads."""

    name = "openvino"

    def __init__(self, graph: Any, *, precision: str, num_threads: int) -> None:
        openvino = load_openvino()
        self.precision = precision
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads,
        }

        def compiled() -> Any:
            return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

        self._request = _in_own_thread(compiled)

    @classmethod
    def open(
        cls,
        model: MultiGrain,
        *,
        shape: tuple[int, int],
        precision: str,
        num_threads: int,
        cached: Path | None,
    ) -> "OpenVINOEngine":
        """Compile the graph stored at `cached`, or convert the model and store it there.

        A stored graph that cannot be read is converted again. A cache that cannot be written
        costs one log line and a conversion at every start.
        """
        graph = _stored(cached) if cached is not None else None
        if graph is None:
            graph = convert(model, shape)
            if cached is not None:
                _store(graph, cached)
                # Compiled from what is kept, as by every later process: a graph that was just
                # converted is optimised otherwise, and its last bits differ.
                kept = _stored(cached)
                graph = graph if kept is None else kept
        return cls(graph, precision=precision, num_threads=num_threads)

    def infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [N, H, W, 3] -> unit float32 [N, E]; one caller at a time."""
        unit: npt.NDArray[np.float32] = self._request.infer({0: pixels}, share_inputs=True)[0]
        return unit.copy()  # the request's own buffer is reused by the next call


def _stored(cached: Path) -> Any | None:
    openvino = load_openvino()
    try:
        if cached.exists():
            return openvino.Core().read_model(cached)
    except (OSError, RuntimeError) as error:
        logger.warning("converting again, the kept model %s is unreadable: %s", cached, error)
    return None


def _store(graph: Any, cached: Path) -> None:
    """Serialise the graph (two files) in a folder of its own, then rename the folder."""
    openvino = load_openvino()
    try:
        cached.parent.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent.parent, prefix=".new-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            openvino.serialize(graph, str(made / cached.name))
            for file in made.iterdir():
                fsync_file(file)
            shutil.rmtree(cached.parent, ignore_errors=True)  # an unreadable one
            made.rename(cached.parent)
    except (OSError, RuntimeError) as error:  # OpenVINO reports a full disk as RuntimeError
        logger.warning("cannot keep the converted model in %s: %s", cached.parent, error)
