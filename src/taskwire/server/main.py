"""Runs the server: sockets, uvicorn with our WebSocket protocol, signals, and a shutdown in good order."""

import asyncio
import contextlib
import functools
import gc
import random
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from typing import Any, cast

import structlog
import uvicorn
import uvloop

from taskwire.logs import configure
from taskwire.server.app import create_app
from taskwire.server.http import HttpConnection
from taskwire.server.runtime import Runtime
from taskwire.server.websocket import WebSocketConnection
from taskwire.settings import Settings

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """uvicorn, with a drain before its shutdown and our own way with signals."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM and SIGINT end the server in good order and with exit code 0; a second one ends it at once."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, tell every client when to come back, then let requests under way finish."""
        for server in self.servers:
            server.close()
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Close the connections spread over ``drain_time``, each with a delay of its own, so that they do not all come
        back at once."""
        runtime = self._runtime
        runtime.draining = True
        waiting = list(runtime.sockets)
        if not waiting:
            return
        log.info("server.draining", connections=len(waiting))
        random.shuffle(waiting)
        total = runtime.settings.drain_time
        steps = max(1, min(50, len(waiting) // 20))
        size = -(-len(waiting) // steps)
        for step in range(steps):
            for connection in waiting[step * size : (step + 1) * size]:
                # The later ones have waited already; all come back between one and two drain times from the start.
                left = total * (1 - step / steps)
                connection.drain(left + random.uniform(0, total))  # noqa: S311  spreads load, guards nothing
            if self.force_exit:
                break
            if step < steps - 1:
                await asyncio.sleep(total / steps)


def run(settings: Settings) -> int:
    """Serve until a signal says otherwise; the exit code. Raises ValueError for settings that may not be served."""
    settings.check()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    configure(settings.log_format, settings.log_level)
    try:
        sockets = [_bind(host, port) for host, port in settings.addresses]
    except OSError as error:
        hint = "Choose another address with --listen HOST:PORT."
        sys.stderr.write(f"taskwire: {error.strerror or error}. {hint}\n")
        return 1
    try:
        await _serve_on(sockets, settings)
    finally:
        for sock in sockets:
            sock.close()
    log.info("server.stopped")
    return 0


async def _serve_on(sockets: list[socket.socket], settings: Settings) -> None:
    runtime = Runtime(settings)
    try:
        password = await runtime.start()
        config = uvicorn.Config(
            create_app(runtime),
            http=HttpConnection,
            ws=cast(Any, functools.partial(WebSocketConnection, runtime.socket_context)),
            lifespan="off",
            log_config=None,
            access_log=settings.log_level == "debug",
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            server_header=False,
            backlog=4096,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.shutdown_timeout) or 1,
        )
        _announce(settings, sockets, password)
        # What exists now lives as long as the process: keep the collector from going over it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        await Server(config, runtime).serve(sockets)
    finally:
        await runtime.stop()


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError with the address in its text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(4096)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def _announce(settings: Settings, sockets: Sequence[socket.socket], password: str | None) -> None:
    """Tell where we listen. The made-up password of the first start goes to the terminal only, never into the log."""
    addresses = [f"{name[0]}:{name[1]}" for sock in sockets for name in [sock.getsockname()]]
    log.info("server.started", listen=addresses, demo=settings.demo, data=str(settings.data))
    if sys.stderr.isatty():
        sys.stderr.write(f"\n  Serving on {settings.base_url} - Ctrl-C ends it.\n\n")
    if password is not None:
        sys.stderr.write(
            f"\n  First start: the user `admin` was made. Its password, shown this once only:\n\n      {password}\n\n"
        )
        sys.stderr.flush()
