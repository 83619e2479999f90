"""Checkpoints written in the background, from a copy of the state in host memory."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

Path = tuple[Any, ...]


class HostCopies:
    """Copies of a state's tensors in host memory, whose room is kept from one to the next.

    From a GPU the copies run in its own queue, into pinned memory: whoever reads them waits for
    `copied` first.
    """

    def __init__(self) -> None:
        self._room: dict[Path, Tensor] = {}
        self.copied: torch.cuda.Event | None = None

    def take(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state of the same content that later steps do not change."""
        self.copied = None
        copied: dict[str, Any] = self._copy(dict(state), ())
        if self.copied is not None:
            self.copied.record()
        return copied

    def reserve(self, state: Mapping[str, Any]) -> None:
        """Allocate the room that such a state takes, so that its first copy is as quick as others.

        New memory costs more to touch for the first time than to copy into.
        """
        for path, tensor in _tensors(dict(state), ()):
            on_gpu = tensor.device.type == "cuda"
            room = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu)
            self._room[path] = room.zero_()

    def _copy(self, value: Any, path: Path) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), path)
        if isinstance(value, Mapping):
            return {key: self._copy(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(part, (*path, i)) for i, part in enumerate(value))
        return value

    def _tensor(self, tensor: Tensor, path: Path) -> Tensor:
        on_gpu = tensor.device.type == "cuda"
        if on_gpu and self.copied is None:
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        room = self._room.get(path)
        if room is None or not _alike(room, tensor):
            room = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu)
            self._room[path] = room
        return room.copy_(tensor, non_blocking=on_gpu)


def _tensors(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """The tensors of a state and where they stand in it."""
    if isinstance(value, Tensor):
        yield path, value.detach()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, (*path, key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _tensors(part, (*path, number))


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


class StateWriter:
    """Writes states with `write(step, state, best_step)` in a thread, one at a time.

    Only the copy into host memory holds up the caller. Used as a context, it ends when the write
    under way has.
    """

    def __init__(self, write: Callable[..., Any]) -> None:
        self._write = write
        self._copies = HostCopies()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def reserve(self, state: Mapping[str, Any]) -> None:
        """Make room for copies of such a state, in the background."""
        self._under_way = self._thread.submit(self._copies.reserve, state)

    def save(self, step: int, state: Mapping[str, Any], *, best_step: int | None) -> None:
        """Copy a state and begin to write it; first wait for the one before.

        Raises what went wrong with the one before.
        """
        self.wait()
        copied = self._copies.take(state)
        self._under_way = self._thread.submit(self._finish, step, copied, best_step)

    @property
    def failed(self) -> bool:
        """Whether the last write has ended with an error, which `wait` raises."""
        done = self._under_way is not None and self._under_way.done()
        return done and self._under_way is not None and self._under_way.exception() is not None

    def wait(self) -> None:
        """Wait until nothing is under way; raises what went wrong."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the write under way, also when the block ends with an error."""
        self._thread.shutdown(wait=True)

    def _finish(self, step: int, state: dict[str, Any], best_step: int | None) -> None:
        if self._copies.copied is not None:
            self._copies.copied.synchronize()
        self._write(step, state, best_step=best_step)
