"""Where a process stands among those that torchrun started."""

from collections.abc import Mapping
from typing import NamedTuple

from multigrain.cpus import num_cpus


class Place(NamedTuple):
    """A process's number among `world`, and among the `local_world` of its machine.

    `meeting` is where the first of them can be found, `attempt` counts torchrun's restarts.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    meeting: tuple[str, int]
    attempt: int
    is_met_by_agent: bool

    @property
    def is_first(self) -> bool:
        """Whether this is the process that builds, and speaks."""
        return self.rank == 0

    @property
    def is_one_machine(self) -> bool:
        """Whether all processes run on one machine."""
        return self.world == self.local_world

    @property
    def num_threads(self) -> int:
        """This process's share of the machine's cores."""
        return max(1, num_cpus() // self.local_world)

    def device(self, asked: str, num_gpus: int) -> str:
        """The device of this process: where GPUs are asked for and there are some, one of its own.

        Raises DeviceError where there are too few.
        """
        if asked not in {"auto", "cuda"} or num_gpus == 0:
            return asked
        if self.local_rank >= num_gpus:
            from multigrain.engine import DeviceError  # which loads torch

            raise DeviceError(
                f"process {self.local_rank} has no GPU of its own, there are {num_gpus}: start "
                "fewer processes, or use --device cpu"
            )
        return f"cuda:{self.local_rank}"


def place_in(environ: Mapping[str, str]) -> Place | None:
    """What torchrun says of this process; None where it is the only one."""
    world = int(environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return None
    return Place(
        rank=int(environ["RANK"]),
        world=world,
        local_rank=int(environ["LOCAL_RANK"]),
        local_world=int(environ["LOCAL_WORLD_SIZE"]),
        meeting=(environ["MASTER_ADDR"], int(environ["MASTER_PORT"])),
        attempt=int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        is_met_by_agent=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )
