"""Precision and repeatability: what the settings mean on this device."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch

from multigrain.errors import MultiGrainError

BF16_CAPABILITY = (8, 0)  # the first GPUs whose units multiply bf16
_BF16_FLAGS = frozenset(("amx_bf16", "avx512_bf16"))
_CPUINFO = Path("/proc/cpuinfo")
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class NumericsError(MultiGrainError):
    """A precision that the device does not have."""


class Numerics(NamedTuple):
    """The trunk's precision on a device; fp16 needs its losses scaled."""

    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The setting that asks for this precision: bf16, fp16 or fp32."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    @property
    def scales(self) -> bool:
        """Whether gradients would vanish without a scaled loss."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[None]:
        """Run the block's heavy operations in this precision."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def numerics_of(precision: str, device: torch.device, *, cpuinfo: str | None = None) -> Numerics:
    """Choose the precision on a device.

    `auto` is bf16 where the hardware multiplies it, fp16 on older GPUs, fp32 on older CPUs.
    `cpuinfo` is the text of /proc/cpuinfo. Raises NumericsError for fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise NumericsError("--precision fp16 needs a GPU: take bf16, fp32 or auto on a CPU")
    if precision == "auto":
        precision = _best_on(device, _read_cpuinfo() if cpuinfo is None else cpuinfo)
    return Numerics(device, _DTYPES[precision])


def cpu_has_bf16(cpuinfo: str) -> bool:
    """Whether the text of /proc/cpuinfo lists units for bf16; without them it is emulated."""
    lines = (line for line in cpuinfo.splitlines() if line.startswith("flags"))
    return bool(_BF16_FLAGS & set(next(lines, "").split()))


def make_deterministic(say: Callable[[str], None]) -> None:
    """Let torch use only operations that repeat to the bit; raises on others at run time."""
    os.environ.setdefault(_CUBLAS, ":4096:8")  # read when the first matrices are multiplied
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    say(f"deterministic operations only, {_CUBLAS}={os.environ[_CUBLAS]}")


def _best_on(device: torch.device, cpuinfo: str) -> str:
    if device.type == "cpu":
        return "bf16" if cpu_has_bf16(cpuinfo) else "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= BF16_CAPABILITY else "fp16"


def _read_cpuinfo() -> str:
    try:
        return _CPUINFO.read_text()
    except OSError:  # another system than Linux
        return ""
