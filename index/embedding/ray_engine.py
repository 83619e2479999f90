"""A build whose photos Ray Data reads and embeds, on one machine or many; see docs/decisions/0020.

Ray's tasks read blocks of photos, and its actors embed them; what is embedded, and every row and
id, is decided here, in scan order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
import ray.data

from index.collection.reading import PhotoEmbedder
from index.embedding.blocks import Work
from index.embedding.messages import ModelName
from index.embedding.ray_blocks import Power, RayBlocks
from index.embedding.ray_desk import start_desk
from index.embedding.ray_stages import Block, EmbedBlocks, Reading, read_block
from index.errors import WorkerError
from multigrain.prepared import Prepared

# Ray Data takes a list that has an end, and opens its models anew for the next one.
BLOCKS_A_DATASET = 4096


class RayCrew:
    """All that Ray has, reading and embedding for a build.

    `read` decodes, and `open_embedder` opens the model, in processes of Ray's: both are pickled.
    """

    def __init__(
        self,
        *,
        read: Callable[[bytes], Prepared],
        open_embedder: Callable[[], PhotoEmbedder],
        timeout_seconds: float,
        blocks_a_dataset: int = BLOCKS_A_DATASET,
    ) -> None:
        self._read, self._open_embedder = read, open_embedder
        self._timeout_seconds, self._blocks_a_dataset = timeout_seconds, blocks_a_dataset

    @contextmanager
    def at_work(self, work: Work) -> Iterator[RayBlocks]:
        """Ray, told what to do with a block; behind it, nothing of the build runs there."""
        uses_gpu = not str(work.embedder.device).startswith("cpu")
        power = _power(uses_gpu=uses_gpu)
        desk = start_desk()
        stages = _Stages(
            {"desk": desk, "reading": Reading(work.bases, self._read, ray.put(work.known_heads))},
            {
                "desk": desk,
                "open_embedder": self._open_embedder,
                "name": ModelName.of(work.embedder),
            },
            num_models=power.num_models,
            uses_gpu=uses_gpu,
        )
        hands = RayBlocks(
            desk,
            stages.over,
            power=power,
            blocks_a_dataset=self._blocks_a_dataset,
            timeout_seconds=self._timeout_seconds,
        )
        try:
            yield hands
        finally:
            hands.close()


class _Stages(NamedTuple):
    """What Ray does with blocks, and what it needs for it: tasks read, actors embed."""

    reading: dict[str, Any]
    embedding: dict[str, Any]
    num_models: int
    uses_gpu: bool

    def over(self, blocks: Sequence[Block]) -> ray.data.Dataset:
        """A dataset of these blocks' rows, in their order."""
        given = ray.data.from_items(list(blocks), override_num_blocks=len(blocks))
        read = given.map(
            read_block,  # type: ignore[arg-type] # its keywords are not known to the type
            fn_kwargs=self.reading,
            num_cpus=1,
        )
        done = read.map(
            EmbedBlocks,  # type: ignore[arg-type] # classes are taken, their type is not known
            fn_constructor_kwargs=self.embedding,
            compute=ray.data.ActorPoolStrategy(size=self.num_models),
            # A model on CPUs shares them with those who read, as in one process.
            num_cpus=0,
            num_gpus=1 if self.uses_gpu else None,
        )
        done.context.execution_options.preserve_order = True
        done.context.enable_progress_bars = False  # a build shows its own
        done.context.print_on_execution_start = False
        return done


def _power(*, uses_gpu: bool) -> Power:
    """A model for each GPU, or for each machine; raises WorkerError where there is none."""
    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_machines = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    num_models = int(found.get("GPU", 0)) if uses_gpu else num_machines
    if num_models == 0:
        raise WorkerError("Ray has no GPU, and this process has one: use --device cpu")
    return Power(found.get("CPU", 1.0), num_models)
