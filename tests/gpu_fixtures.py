"""A faiss module that claims to have a GPU: indexes are "copied" there, and bound as there."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import faiss

MOST = 2048


class FakeGpuIndex:
    """An index of the CPU behind what a GPU's refuses: selectors, large k, two callers at once."""

    def __init__(self, index: Any, used: list[str]) -> None:
        self.index, self._used = index, used
        self._busy = threading.Lock()

    def train(self, rows: Any) -> None:
        """Train."""
        self._used.append("train")
        self.index.train(rows)

    def add_with_ids(self, rows: Any, ids: Any) -> None:
        """Add."""
        self._used.append("add")
        self.index.add_with_ids(rows, ids)

    def search_preassigned_c(self, num: int, queries: Any, k: int, *rest: Any) -> None:
        """Search alone, with parameters that a GPU knows."""
        params = rest[-1]
        assert max(k, params.nprobe) <= MOST
        assert params.sel is None
        assert self._busy.acquire(blocking=False), "two callers at once"
        try:
            self._used.append("search")
            time.sleep(0.001)
            self.index.search_preassigned_c(num, queries, k, *rest)
        finally:
            self._busy.release()


class FakeGpuFaiss:
    """The part of faiss-gpu that is used; notes what was done on the GPU."""

    StandardGpuResources = object
    GpuClonerOptions = SimpleNamespace

    def __init__(self, *, num_gpus: int = 1, refused: type | None = None) -> None:
        self.used = list[str]()
        self._num_gpus, self._refused = num_gpus, refused

    def get_num_gpus(self) -> int:
        """How many there are."""
        return self._num_gpus

    def index_cpu_to_gpu(
        self, _resources: object, _number: int, index: Any, options: SimpleNamespace
    ) -> FakeGpuIndex:
        """A copy behind a GPU's bounds; raises what faiss raises for an index it does not know."""
        is_graph = isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW)
        assert options.allowCpuCoarseQuantizer or not is_graph
        if self._refused is not None and isinstance(index, self._refused):
            raise RuntimeError("Error in clone_Index at GpuCloner.cpp:1: not implemented on GPU")
        return FakeGpuIndex(faiss.clone_index(index), self.used)

    def index_gpu_to_cpu(self, on_gpu: FakeGpuIndex) -> Any:
        """The index itself."""
        return on_gpu.index
