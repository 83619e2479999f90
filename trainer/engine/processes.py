"""The processes of a run: started by torchrun, or one alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from multigrain.cpus import num_cpus
from multigrain.engine import DeviceError, resolve_device

T = TypeVar("T")


class Processes(NamedTuple):
    """This process among the others.

    Collectives of tensors go through the default group (nccl or gloo); `control` is a gloo
    group for small decisions on the CPU, which never wait for the device.
    """

    rank: int
    world: int
    device: torch.device
    control: dist.ProcessGroup | None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set on any process."""
        if self.control is None:
            return flags
        values = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(value) for value in values)

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in rank order, on every process."""
        if self.control is None:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return [value for value in values if value is not None]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.control is not None:
            dist.barrier(group=self.control)


class Agreement:
    """Flags on which all processes agree one step later, so that no step waits for another process.

    The exchange runs on the CPU while the next step is computed. Alone there is nothing to wait
    for, and a flag comes back at once.
    """

    def __init__(self, processes: Processes) -> None:
        self._group = processes.control
        self._flags = torch.zeros(0, dtype=torch.int64)
        self._work: dist.Work | None = None

    def exchange(self, *flags: bool) -> tuple[bool, ...]:
        """Send this step's flags and return those of the step before, set where any process's is.

        The first call returns flags that are not set.
        """
        if self._group is None:
            self._flags = torch.tensor(flags, dtype=torch.int64)
            return flags
        before = self.last() if self._work is not None else (False,) * len(flags)
        self._flags = torch.tensor(flags, dtype=torch.int64)
        self._work = dist.all_reduce(
            self._flags, op=dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return before

    def last(self) -> tuple[bool, ...]:
        """Wait for the flags sent last, and return them."""
        if self._work is not None:
            self._work.wait()
        return tuple(bool(flag) for flag in self._flags)


@contextmanager
def joined_processes(
    environ: Mapping[str, str], *, device: str, num_threads: int | None
) -> Iterator[Processes]:
    """Join the processes that torchrun started; with a plain `python` be the only one.

    On the CPU the cores are shared out between the processes of this machine.
    """
    local_rank = int(environ.get("LOCAL_RANK", "0"))
    local_world = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen = _device(device, local_rank)
    torch.set_num_threads(num_threads or max(1, num_cpus() // local_world))
    if "WORLD_SIZE" not in environ:
        yield Processes(0, 1, chosen, None)
        return
    if chosen.type == "cuda":
        dist.init_process_group("nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    # A whole evaluation may lie between two decisions.
    control = dist.new_group(backend="gloo", timeout=timedelta(hours=2))
    assert isinstance(control, dist.ProcessGroup)  # every process is a member
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen, control)
    finally:
        dist.destroy_process_group()


def reported(main: Callable[[], int], environ: Mapping[str, str]) -> int:
    """Run one of torchrun's processes so that torchrun can say what it failed of."""
    if "TORCHELASTIC_ERROR_FILE" not in environ:
        return main()
    from torch.distributed.elastic.multiprocessing.errors import record

    status = record(main)()
    return 0 if status is None else status


def _device(name: str, local_rank: int) -> torch.device:
    if resolve_device(name) == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise DeviceError(
            f"process {local_rank} has no GPU of its own, there are "
            f"{torch.cuda.device_count()}: start fewer processes, or use --device cpu"
        )
    chosen = torch.device("cuda", local_rank)
    torch.cuda.set_device(chosen)
    return chosen


def alone(device: str = "cpu") -> Processes:
    """Return the only process, for programs that nothing starts in numbers."""
    return Processes(0, 1, _device(device, 0), None)
