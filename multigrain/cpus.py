"""How many processors this process may really use."""

import math
import os
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def num_cpus(quota_file: Path = _QUOTA_FILE) -> int:
    """Processors of this process's affinity, at most those of its container's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        available = os.cpu_count() or 1
    return max(1, min(available, _quota(quota_file) or available))


def _quota(quota_file: Path) -> int | None:
    """Whole processors of a control group (version 2), None without a limit.

    The file holds microseconds allowed and microseconds of a period: `200000 100000` are two.
    """
    try:
        allowed, period = quota_file.read_text().split()
        return None if allowed == "max" else math.ceil(int(allowed) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no control groups, or another version
        return None
