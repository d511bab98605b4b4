"""The server's side of one WebSocket connection, sans-I/O: a thin layer over the ``websockets`` protocol core.

Bytes go in through ``receive``, which gives messages and the close; bytes to write come out of ``take``. Outgoing data
frames are not made here: they are built once in ``wire.frames`` and written to many connections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from websockets.extensions.base import ServerExtensionFactory
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.typing import BytesLike, Subprotocol

from taskwire.wire.frames import deflate, text_frame

_DEFLATE: Final[Sequence[ServerExtensionFactory]] = (
    # No context is carried over in either direction: the server's side so that frames can be shared, the client's so
    # that an idle connection holds no window. 12 bits keep a compressor at 32 KiB while it works.
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        compress_settings={"memLevel": 5},
    ),
)


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A whole text message, decoded."""

    text: str


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """A whole binary message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class OversizedMessage:
    """A whole message larger than ``keep``; nothing of it was held."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer closed, or broke the protocol. ``code`` as on the wire, 1005 or 1006 (RFC 6455 section 7.4.1)."""

    code: int
    reason: str


WebSocketEvent = TextMessage | BinaryMessage | OversizedMessage | Closed | Request


class _Protocol(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # RFC 6455 section 5.4: control frames may come between the fragments of a message, and a close is one. The
            # library takes it for a protocol error; without a message under way it answers it as any other.
            self.current_size = None
        super().recv_frame(frame)


class WebSocketSession:
    """One connection. First gives the handshake ``Request``, which is answered with ``accept`` or ``reject``.

    A message over ``max_size`` bytes ends the connection. One over ``keep`` is read to its end and reported, but not
    held: four compressed kilobytes may be four megabytes, and its sender may leave it unfinished.
    """

    __slots__ = ("_at_boundary", "_closed", "_held", "_keep", "_min_size", "_protocol", "_size", "_text")

    def __init__(
        self,
        *,
        max_size: int,
        offer_deflate: bool,
        deflate_min_size: int,
        logger: Any,
        keep: int | None = None,
    ) -> None:
        self._protocol = _Protocol(
            extensions=_DEFLATE if offer_deflate else None, max_size=max_size, logger=logger
        )
        self._min_size = deflate_min_size
        self._keep = max_size if keep is None else keep
        self._held: bytearray | None = None  # of a message that comes in fragments
        self._size = 0  # of that message so far
        self._text = False
        self._closed = False
        self._at_boundary = False

    @property
    def open(self) -> bool:
        """Whether messages may be sent: after the handshake, before any close."""
        return self._protocol.state is OPEN

    def receive(self, data: bytes) -> list[WebSocketEvent]:
        """Take bytes from the peer. Answers to pings and closes wait in ``take``."""
        if self._protocol.state is CONNECTING:
            self._at_boundary = data.endswith(b"\r\n\r\n")
        self._protocol.receive_data(data)
        return self._events()

    def receive_eof(self) -> list[WebSocketEvent]:
        """The peer has ended its stream."""
        self._protocol.receive_eof()
        return self._events()

    def _events(self) -> list[WebSocketEvent]:
        found: list[WebSocketEvent] = []
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event, found)
                event.data = b""  # the parser holds on to the frame until the next one comes
            elif isinstance(event, Request):
                found.append(event)
        if self._protocol.parser_exc is not None:
            sent = self._protocol.close_sent
            self._close(found, 1006 if sent is None else sent.code, "" if sent is None else sent.reason)
        return found

    def _frame(self, frame: Frame, found: list[WebSocketEvent]) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._text = opcode is Opcode.TEXT
            if frame.fin:
                self._message(frame.data, len(frame.data), found)
            else:
                self._held, self._size = bytearray(), 0
                self._hold(self._held, frame.data)
        elif opcode is Opcode.CONT and self._held is not None:
            held = self._held
            self._hold(held, frame.data)
            if frame.fin:
                self._held = None
                self._message(held, self._size, found)
        elif opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self._close(
                found,
                1005 if received is None else received.code,
                "" if received is None else received.reason,
            )

    def _hold(self, held: bytearray, data: BytesLike) -> None:
        self._size += len(data)
        if self._size <= self._keep:
            held += data
        else:
            held.clear()

    def _message(self, data: BytesLike, size: int, found: list[WebSocketEvent]) -> None:
        if self._closed:
            return
        if size > self._keep:
            found.append(OversizedMessage())
            return
        if not self._text:
            found.append(BinaryMessage(bytes(data)))
            return
        try:
            found.append(TextMessage(str(data, "utf-8")))
        except UnicodeDecodeError:  # RFC 6455 section 8.1
            if self._protocol.state is OPEN:
                self._protocol.fail(1007, "text is not UTF-8")
            self._close(found, 1007, "text is not UTF-8")

    def _close(self, found: list[WebSocketEvent], code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            found.append(Closed(code, reason))

    def accept(self, request: Request, subprotocol: str | None = None) -> bool:
        """Answer the handshake; False if the request is no valid one (the refusal is in ``take``)."""
        if self._protocol.eof_sent:  # by what came behind the request without waiting for the answer
            return False
        response = self._protocol.accept(request)
        if response.status_code == 101 and subprotocol is not None:
            self._protocol.subprotocol = Subprotocol(subprotocol)
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._protocol.send_response(response)
        if response.status_code != 101:
            return False
        if self._at_boundary:
            # The parser that read the handshake would keep the request alive for as long as the connection, which is
            # about 2 KB; nothing but the request has arrived, so that a fresh one can take over.
            self._protocol.parser = Protocol.parse(self._protocol)
            next(self._protocol.parser)
        return True

    def reject(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse the handshake with an HTTP response."""
        if self._protocol.eof_sent:
            return
        response: Response = self._protocol.reject(status, text)
        for name, value in headers:
            response.headers[name] = value
        self._protocol.send_response(response)

    @property
    def framing(self) -> Any:
        """The framing of this connection's outgoing messages (``hub.ports.Framing``), as negotiated."""
        for extension in self._protocol.extensions:
            if isinstance(extension, PerMessageDeflate):
                return deflate(extension.local_max_window_bits, self._min_size)
        return text_frame

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; no data frame may follow."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)

    def take(self) -> bytes:
        """What is to be written now; empty if nothing."""
        return b"".join(self._protocol.data_to_send())

    @property
    def done(self) -> bool:
        """Whether the socket may be closed: both sides have said goodbye, or the connection has failed."""
        return self._protocol.eof_sent
