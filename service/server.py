"""The process around the application: port, logs, signals, orderly end."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn

from multigrain.errors import MultiGrainError
from service.app import create_app
from service.receiving.request_head import BoundedHeadProtocol
from service.routes.exposition import serve_metrics
from service.serving.runtime import Runtime
from service.settings import Settings
from service.watching.logs import set_up_logging

logger = logging.getLogger(__name__)


class PortError(MultiGrainError):
    """The address cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything slow is done; raises PortError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:  # the second: a name that is no host's
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise PortError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from None
    return listener


class DrainingServer(uvicorn.Server):
    """One service on one port; after SIGTERM it stays reachable so that a balancer notices.

    The port is taken on construction, before anything slow is done: raises PortError, and
    DeviceError for a device that is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.listener = bind(settings.host, settings.port)
        try:
            self.runtime = Runtime(settings)
            self._close_metrics = self._open_metrics(settings)
        except MultiGrainError:
            self.listener.close()
            raise
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            create_app(self.runtime, on_failure=self._fail),
            http=BoundedHeadProtocol,
            log_config=None,
            access_log=False,  # ours has the request id
            lifespan="on",
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
        super().__init__(config)

    @property
    def url(self) -> str:
        """Address of the service, with the port it was given."""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop that signals have to reach; SIGHUP reloads the index."""
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            self._loop.add_signal_handler(signal.SIGHUP, self.runtime.reload)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the ports and whatever is behind them."""
        await super().shutdown(sockets)
        self._close_metrics()
        logger.info("ended")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first SIGTERM; a second signal, or Ctrl-C, ends at once."""
        first = not self.runtime.draining
        self.runtime.draining = True
        if sig == signal.SIGTERM and first and self._loop is not None:
            end = partial(super().handle_exit, sig, frame)
            # Signals interrupt the loop: only the threadsafe call wakes it.
            self._loop.call_soon_threadsafe(self._drain, end)
            return
        super().handle_exit(sig, frame)
        self.force_exit = self.force_exit or not first

    def _drain(self, end: Callable[[], None]) -> None:
        """Let a balancer notice, then end."""
        grace_seconds = self.runtime.settings.drain_grace_s
        logger.info("draining: the port is closed in %g s", grace_seconds)
        asyncio.get_running_loop().call_later(grace_seconds, end)

    def _open_metrics(self, settings: Settings) -> Callable[[], None]:
        """Take the port of /metrics, where it has one of its own."""
        if settings.metrics_port is None:
            return lambda: None
        try:
            return serve_metrics(
                self.runtime.metrics.registry, settings.host, settings.metrics_port
            )
        except OSError as error:
            raise PortError(
                f"cannot listen on {settings.host} port {settings.metrics_port}: {error.strerror}; "
                "choose another with --metrics-port"
            ) from None

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Answer requests until a signal ends it; raises MultiGrainError when it cannot start."""
    set_up_logging(settings.log_format)
    server = DrainingServer(settings)
    logger.info("%s: opening the index, warming the model", server.url)
    server.run(sockets=[server.listener])
    if server.failure is not None:
        raise server.failure
