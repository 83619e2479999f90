"""Watch a step on the CPU for what a GPU would make the host wait for."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Waiting(TorchDispatchMode):
    """Notes operations for which a GPU's host would have to wait."""

    NAMES = (
        "_local_scalar_dense",
        "item",
        "nonzero",
        "masked_select",
        "unique",
        "repeat_interleave",
        "index.Tensor",
        "index_put",
        "lift_fresh",  # torch.tensor(...) in the step: a copy from the host
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation and do it."""
        name = str(func)
        if any(name.startswith(f"aten.{waits}") for waits in self.NAMES):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))
