"""What a run was computed with: versions, machine, and an allow-list of the environment."""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from multigrain.cpus import num_cpus
from trainer.engine.processes import Processes

_PACKAGES = ("multigrain-retrieval", "torch", "torchvision", "numpy", "pillow", "timm")
# Only what changes a computation: an environment may hold passwords.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "LOCAL_WORLD_SIZE", "MKL_NUM_THREADS",
    "NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF", "SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_RESTART_COUNT",
    "TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE",
)  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")
_GIT_SECONDS = 5


def describe_environment(environ: Mapping[str, str], processes: Processes) -> str:
    """Return env.json's text."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "source": _source(Path(__file__).parents[2]),
        "processes": processes.world,
        "device": _device(processes.device),
        "cpu": _cpu(),
        "cpus": num_cpus(),
        "threads": torch.get_num_threads(),
        "environment": {name: environ[name] for name in _VARIABLES if name in environ},
    }
    return json.dumps(facts, indent=2) + "\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _source(folder: Path) -> str | None:
    """The commit of a checkout, with `+` behind it when files differ; None elsewhere."""
    if not (folder / ".git").exists():
        return None
    commit, changed = (
        _git(folder, "rev-parse", "HEAD"),
        _git(folder, "status", "--porcelain", "-uno"),
    )
    return None if commit is None else commit.strip() + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(folder), *words],  # noqa: S607 - git is found on the PATH
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"type": device.type}
    facts = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": facts.name,
        "memory_gigabytes": round(facts.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _cpu() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
