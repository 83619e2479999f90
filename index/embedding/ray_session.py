"""A cluster of Ray's to build with: one that runs, or one of this machine alone."""

import logging
import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from index.errors import WorkerError
from multigrain.cpus import num_cpus

_CONNECT_SECONDS = 10.0
# Read by Ray when it is imported, and when a cluster starts.
_OWN_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to its makers
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of one machine listens on its loopback
    "RAY_worker_niceness": "0",  # Ray's 15 leaves its workers 3 % of a processor others want too
}


@contextmanager
def ray_session(
    address: str | None,
    *,
    environ: MutableMapping[str, str] = os.environ,
    **settings: Any,
) -> Iterator[None]:
    """Connect to the cluster at an address, or that of RAY_ADDRESS; else start one here.

    One that was started here, with `settings` of ray.init, ends with the block. Raises WorkerError
    where none is found, or Ray is not installed.
    """
    address = address or environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        environ.update(_OWN_ENVIRONMENT)
        settings = {"num_cpus": num_cpus(), "include_dashboard": False} | settings
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise WorkerError(
            "--engine ray needs Ray: pip install 'multigrain-retrieval[ray]'"
        ) from error
    try:
        _require_listener(address)
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **settings)
    except Exception as error:  # where it does not start in 30 s, Ray raises no other
        raise WorkerError(f"no Ray at {address}: {error}; see --ray-address") from error
    # What it advises is for those who write its datasets.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
