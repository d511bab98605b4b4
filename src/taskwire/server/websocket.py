"""The asyncio protocol of one WebSocket connection: pumps bytes between the transport and the wire session.

uvicorn hands the connection over after it has read the upgrade request. From there no ASGI, no queue and no task stands
between the hub and ``transport.write``.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from websockets.http11 import Request

from taskwire.core import errors
from taskwire.core.errors import CloseKind
from taskwire.hub.outlet import Outlet
from taskwire.server.context import SessionContext
from taskwire.server.origins import TrustedProxies, origin_allowed
from taskwire.server.routes import contract_of
from taskwire.server.session import ClientSession
from taskwire.wire.dialect import Dialect
from taskwire.wire.frames import PING
from taskwire.wire.websocket import BinaryMessage, Closed, OversizedMessage, TextMessage, WebSocketSession

log = structlog.get_logger(__name__)

_quiet: Final = logging.getLogger("taskwire.websockets")
_quiet.setLevel(logging.CRITICAL)  # the session reports what matters; the library logs every close


@dataclass(frozen=True, slots=True)
class SocketContext:
    """What all WebSocket connections of a node share. ``draining`` is asked at every handshake."""

    session: SessionContext
    dialects: Mapping[str, Dialect]
    proxies: TrustedProxies
    started_at: float
    draining: Callable[[], bool]
    all: dict["WebSocketConnection", None]


class WebSocketConnection(asyncio.Protocol):
    """One connection. uvicorn makes it with the keyword arguments that it makes its own protocols with."""

    __slots__ = (
        "_aborting",
        "_address",
        "_client",
        "_connections",
        "_context",
        "_counted",
        "_last_seen",
        "_outlet",
        "_socket", "_transport",
        "_wire",
        "deadline",
    )  # fmt: skip

    def __init__(
        self, context: SocketContext, *, config: Any, server_state: Any, app_state: Any, _loop: Any = None
    ) -> None:
        settings = context.session.settings
        self._context = context
        self._connections: set[Any] = server_state.connections
        self._transport: asyncio.Transport | None = None
        self._wire = WebSocketSession(
            max_size=settings.ws_max_frame,
            keep=settings.ws_max_message,
            offer_deflate=settings.ws_deflate,
            deflate_min_size=settings.ws_deflate_min_size,
            logger=_quiet,
        )
        self._client: ClientSession | None = None
        self._outlet: Outlet | None = None
        self._address = ""
        self._counted = False
        self._socket: socket.socket | None = None
        self._aborting = False
        self._last_seen = context.session.sweep.now
        self.deadline = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = self._context.session.settings
        # With no room in the transport, a write goes to the kernel at once, and what the kernel does not take pauses
        # us at once: so "not paused" means that nothing waits, and the hub may send straight to the socket.
        self._transport.set_write_buffer_limits(high=0)
        if settings.ws_send_buffer:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.ws_send_buffer)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._last_seen = self._context.session.sweep.now
        events = self._wire.receive(data)
        if self._wire.open:
            self._flush()  # pongs as soon as is practical (RFC 6455 section 5.5.2); a close goes after the replies
        self._pump(events)

    def eof_received(self) -> None:
        self._pump(self._wire.receive_eof())

    def pause_writing(self) -> None:
        if self._outlet is not None:
            self._outlet.pause()

    def resume_writing(self) -> None:
        if self._outlet is not None and self._client is not None:
            self._outlet.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        context = self._context
        context.session.sweep.discard(self)
        context.all.pop(self, None)
        if self._counted:
            self._counted = False
            context.session.connections.leave(self._address)
        self._end(1006)
        if self._socket is not None:
            self._socket.detach()  # the transport closes the descriptor; it must not be closed, or used, again
            self._socket = None
        self._transport = None

    def shutdown(self) -> None:
        """uvicorn asks the connections that are left to go."""
        self.close(errors.GOING_AWAY)

    # Incoming

    def _pump(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, TextMessage):
                if self._client is not None:
                    self._client.receive_text(event.text)
            elif isinstance(event, BinaryMessage):
                if self._client is not None:
                    self._client.receive_binary()
            elif isinstance(event, OversizedMessage):
                if self._client is not None:
                    self._client.receive_oversized()
            elif isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Closed):
                self._end(event.code)
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        data = self._wire.take()
        if data:
            transport.write(data)
            # Pongs pass the outlet by: one who pings on and on and never reads must not fill the memory with them.
            if transport.get_write_buffer_size() > 2 * self._context.session.settings.ws_write_limit:
                self._end(errors.TOO_SLOW.code)
                transport.abort()
                return
        if self._wire.done and not transport.is_closing():
            transport.close()
            self._abort_later()

    def _handshake(self, request: Request) -> None:
        context = self._context
        headers = request.headers
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        host = str(peer[0]) if isinstance(peer, tuple) else "local"
        self._address = context.proxies.client_address(host, headers.get_all("X-Forwarded-For"))
        offered = [p.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for p in value.split(",")]
        if any(len(headers.get_all(name)) > 1 for name in ("Origin", "Host")):
            context.session.connections.refused["handshake"] += 1
            self._wire.reject(400, "Wanted one Origin and one Host header at most.\n")
            return
        dialect = context.dialects.get(contract_of(request.path, offered) or "")
        refusal = self._refusal(dialect, headers.get("Origin"), headers.get("Host"))
        if refusal is not None:
            status, text, reason = refusal
            context.session.connections.refused[reason] += 1
            retry = (("Retry-After", "1"),) if status in (429, 503) else ()
            self._wire.reject(status, text + "\n", retry)
        elif dialect is not None and self._wire.accept(request):
            self._open(dialect)
        else:
            context.session.connections.refused["handshake"] += 1

    def _refusal(
        self, dialect: Dialect | None, origin: str | None, host: str | None
    ) -> tuple[int, str, str] | None:
        """Why the handshake is refused: HTTP status, text for people, reason for the metrics; None if it is not."""
        context = self._context
        if dialect is None:
            return 404, "No WebSocket contract is served at this path.", "path"
        if context.draining():
            return 503, "The server is restarting.", "draining"
        if not origin_allowed(origin, host, context.session.settings.origins):
            return 403, "This origin is not allowed to connect.", "origin"
        if (full := context.session.connections.refusal(self._address)) is not None:
            return full[0], "Too many connections.", full[1]
        return None

    def _open(self, dialect: Dialect) -> None:
        context, transport = self._context, self._transport
        assert transport is not None
        session = context.session
        transport.write(self._wire.take())
        self._outlet = Outlet(
            transport.write,
            limit=session.settings.ws_write_limit,
            overflow=self._too_slow,
            stats=session.hub.stats.outlets,
            push=self._straight_to_the_socket(transport),
        )
        id = "session_" + secrets.token_hex(16)
        session.connections.enter(self._address)
        self._counted = True
        context.all[self] = None
        session.sweep.add(self)
        self._client = ClientSession(session, self, dialect, self._outlet, self._wire.framing, id)

    def _straight_to_the_socket(self, transport: asyncio.Transport) -> Callable[[bytes], int] | None:
        """The socket's own ``send``, which costs a sixth less than the transport's ``write``; not through TLS."""
        wrapped = transport.get_extra_info("socket")
        if wrapped is None or transport.get_extra_info("sslcontext") is not None:
            return None
        self._socket = socket.socket(wrapped.family, wrapped.type, wrapped.proto, wrapped.fileno())
        return self._socket.send

    # Outgoing, and the end

    def close(self, kind: CloseKind, reason: str | None = None) -> None:
        """Start the closing handshake; the socket is cut if the peer does not answer in time."""
        if self._transport is None:
            return
        self._wire.close(kind.code, kind.reason if reason is None else reason)
        self._end(kind.code)
        self._flush()
        self._abort_later()

    def _too_slow(self) -> None:
        self.close(errors.TOO_SLOW)

    def _end(self, code: int) -> None:
        """No message comes or goes any more."""
        client, self._client = self._client, None
        if client is not None:
            self._context.session.connections.closed[code] += 1
            user = None if client.principal is None else client.principal.user_id
            log.debug(
                "connection.closed", connectionId=client.id, code=code, userId=user, address=self._address
            )
            client.close()

    def _abort_later(self) -> None:
        if not self._aborting:
            self._aborting = True
            self._context.session.sweep.set_deadline(self, self._context.session.settings.ws_close_timeout)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # The sweep

    def on_deadline(self, now: float) -> None:
        if self._aborting:
            if self._transport is not None:
                self._transport.abort()
        elif self._client is not None:
            self._client.on_deadline()

    def on_ping(self, now: float) -> None:
        """Ping; close a connection that has sent nothing at all for an interval and the timeout."""
        transport = self._transport
        if transport is None or self._aborting or self._client is None:
            return
        settings = self._context.session.settings
        if now - self._last_seen >= settings.ws_ping_interval + settings.ws_ping_timeout:
            self.close(errors.UNRESPONSIVE)
            return
        transport.write(PING)

    def on_heartbeat(self, frames: dict[object, bytes]) -> None:
        if self._client is not None:
            self._client.heartbeat(frames, self._context.started_at)

    # For the server

    @property
    def client(self) -> ClientSession | None:
        return self._client

    @property
    def buffered(self) -> int:
        """Bytes that wait for the peer: kept by the outlet, and in the transport."""
        kept = 0 if self._outlet is None else self._outlet.kept_bytes
        return kept + (0 if self._transport is None else self._transport.get_write_buffer_size())

    def drain(self, retry_after: float) -> None:
        """Tell the client to come back in ``retry_after`` seconds, and close."""
        if self._client is not None:
            self._client.goodbye(retry_after)
            self.close(errors.GOING_AWAY, f"server restarting; reconnect after {retry_after:.1f} s")
