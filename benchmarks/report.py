"""How every benchmark says what was measured, beside what was wanted, on which machine."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple


class Target(NamedTuple):
    """A measured figure and its target; `not_here` says why it is not judged on this machine."""

    name: str
    measured: float
    relation: Literal["<=", ">="]
    wanted: float
    not_here: str | None = None

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps the target; NaN never does."""
        if self.relation == ">=":
            return self.measured >= self.wanted
        return self.measured <= self.wanted


def judge(targets: Iterable[Target]) -> int:
    """Print each target beside the figure; exit status 1 when one is missed."""
    missed = 0
    for target in targets:
        if target.not_here is not None:
            verdict = f"not judged: {target.not_here}"
        else:
            verdict = "met" if target.is_met else "MISSED"
            missed += not target.is_met
        print(
            f"{target.name}: {target.measured:.3f}, wanted {target.relation} "
            f"{target.wanted:g}: {verdict}"
        )
    print(f"{missed} targets missed")
    return 1 if missed else 0


def machine_facts() -> str:
    """Processor, cores and versions, as a table's footnote."""
    flags = _cpu_line("flags").split()
    units = [
        unit for unit in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if unit in flags
    ]
    names = ("torch", "torchvision", "openvino", "faiss-cpu", "pillow", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_cpu_line('model name')}, {cores} cores ({', '.join(units)}), "
        f"Python {platform.python_version()}, {versions}"
    )


def _cpu_line(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.split(":")[0].strip() == key:
            return line.split(":", 1)[1].strip()
    return "unknown"
