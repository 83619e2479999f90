"""How late the event loop is: what blocks it delays every request."""

import asyncio
from collections.abc import Callable

EVERY_SECONDS = 0.5


async def measure_lag(
    note: Callable[[float], None], *, every_seconds: float = EVERY_SECONDS
) -> None:
    """Tell `note` again and again by how many seconds a sleep was too long; until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_at = loop.time() + every_seconds
        await asyncio.sleep(every_seconds)
        note(max(0.0, loop.time() - due_at))
