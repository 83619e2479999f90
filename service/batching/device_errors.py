"""What an error of the model's device means for the batches after it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from service.batching.batch_errors import BatchTooLargeError, EngineDeadError

P = TypeVar("P")
R = TypeVar("R")

# After these CUDA answers every call of the process with the same error.
_STICKY = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable ecc",
)


def translated(
    run_batch: Callable[[Sequence[P]], Sequence[R]],
) -> Callable[[Sequence[P]], Sequence[R]]:
    """The same batch function, whose device errors say what to do about them.

    Raises BatchTooLargeError when memory ran out, after giving back what was cached, and
    EngineDeadError for an error that no call in this process survives.
    """

    def run(payloads: Sequence[P]) -> Sequence[R]:
        try:
            return run_batch(payloads)
        except torch.OutOfMemoryError as error:
            said = str(error)
        except RuntimeError as error:
            if any(words in str(error).lower() for words in _STICKY):
                raise EngineDeadError("the device has failed for this process") from error
            raise
        # Here the error is gone, and with it the frames that held the batch's memory.
        torch.cuda.empty_cache()
        raise BatchTooLargeError(f"no memory for a batch of {len(payloads)}: {said}")

    return run
