"""faiss on a GPU: an index is copied there to be trained, filled or searched, and back.

Where faiss-gpu, a device, or faiss's own code for a string is missing, the CPU does the work and
one line says so. Written after faiss's documentation: it has not run on a GPU.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from index.faiss_module import load_faiss

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class FaissDevice:
    """Where faiss works: on a GPU, one caller at a time, until that is refused; else on the CPU.

    `device` is "cpu", or "cuda..." as torch spells it; `module` is faiss.
    """

    def __init__(self, device: str, *, module: Any = None) -> None:
        self._module = module or load_faiss()
        self._number = int(device.partition(":")[2] or 0)
        # faiss keeps one caller's data in resources that others would write over.
        self._lock = threading.Lock()
        self._resources: Any = None
        self._is_asked = device.startswith("cuda")

    def on_gpu(self, work: Callable[["FaissDevice"], Result]) -> Result | None:
        """What `work` gives; None where a GPU is not asked for, or faiss cannot do it there.

        The first time it cannot, a line says why, and the CPU does this and all that follows.
        """
        with self._lock:
            if not self._is_asked:
                return None
            try:
                self._open()
                return work(self)
            except RuntimeError as error:  # what faiss raises, out of memory included
                self._is_asked = False
                _logger.warning("faiss works on the CPU: %s", _reason(error))
                return None

    def copied_in(self, index: Any) -> Any:
        """An index of the CPU, on the GPU; within `on_gpu` alone."""
        options = self._module.GpuClonerOptions()
        options.allowCpuCoarseQuantizer = True  # a graph of centroids, which no GPU holds
        return self._module.index_cpu_to_gpu(self._resources, self._number, index, options)

    def copied_out(self, index: Any) -> Any:
        """An index of the GPU, on the CPU, to be written; within `on_gpu` alone."""
        return self._module.index_gpu_to_cpu(index)

    def _open(self) -> None:
        if self._resources is not None:
            return
        if not hasattr(self._module, "StandardGpuResources"):
            raise RuntimeError(
                "faiss-cpu is installed; for a GPU install multigrain-retrieval[gpu]"
            )
        if self._number >= self._module.get_num_gpus():
            raise RuntimeError(f"faiss-gpu finds no GPU of number {self._number}")
        self._resources = self._module.StandardGpuResources()


def _reason(error: RuntimeError) -> str:
    """What faiss says behind the place in its source where it says it."""
    return str(error).strip().rpartition(": ")[2] or repr(error)
