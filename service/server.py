"""The process around the application: port, logs, signals, orderly end."""

import asyncio
import logging
import signal
import socket
import threading
from types import FrameType

import uvicorn

from multigrain.errors import MultiGrainError
from service.app import create_app
from service.runtime import Runtime
from service.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_SECONDS = 25
KEEP_ALIVE_SECONDS = 5
_PROBES = ("/health", "/livez", "/readyz")


class PortError(MultiGrainError):
    """The address cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything slow is done; raises PortError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise PortError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from None
    return listener


class DrainingServer(uvicorn.Server):
    """One service on one port; after SIGTERM it stays reachable so that a balancer notices.

    The port is taken on construction, before anything slow is done: raises PortError.
    """

    def __init__(self, settings: Settings) -> None:
        self.listener = bind(settings.host, settings.port)
        self.runtime = Runtime(settings)
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            create_app(self.runtime, on_failure=self._fail),
            log_config=None,
            lifespan="on",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first SIGTERM; a second signal, or Ctrl-C, ends at once."""
        first = not self.runtime.draining
        self.runtime.draining = True
        if sig == signal.SIGTERM and first and self._loop is not None:
            grace_seconds = self.runtime.settings.drain_grace_s
            end = super().handle_exit
            # Signals interrupt the loop: only the threadsafe call wakes it.
            self._loop.call_soon_threadsafe(self._loop.call_later, grace_seconds, end, sig, frame)
            return
        super().handle_exit(sig, frame)
        self.force_exit = self.force_exit or not first

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.should_exit = True


class _QuietProbes(logging.Filter):
    """Keeps the probes of balancers and containers out of the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the line of a GET to one of the health routes."""
        return not any(f" {path} " in record.getMessage() for path in _PROBES)


def _set_up_logging() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for ours in ("service", "index", "multigrain", "uvicorn.access"):
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").addFilter(_QuietProbes())


def serve(settings: Settings) -> None:
    """Answer requests until a signal ends it; raises MultiGrainError when it cannot start."""
    _set_up_logging()
    server = DrainingServer(settings)
    logger.info("%s: opening the index, warming the model", server.url)
    server.run(sockets=[server.listener])
    if server.failure is not None:
        raise server.failure
