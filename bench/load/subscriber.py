"""One WebSocket subscriber: connects, goes through a peer's conversation, then hands every message to a callback."""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol, cast

from bench.load import frames

READY: Final = -1
"""The stage of a conversation in which the subscriber has everything it asked for."""

OnMessage = Callable[["Subscriber", bytes, float], None]
"""Gets the subscriber, the message and the time (monotonic seconds) at which its bytes were read."""

OnLost = Callable[["Subscriber"], None]


class Conversation(Protocol):
    """What a client of some server says until it is subscribed. Stages are small integers, ``READY`` is the last."""

    def path(self) -> str:
        """Path and query of the upgrade request."""

    def opening(self) -> tuple[Sequence[str], int]:
        """What to send right after the upgrade, and the stage that follows."""

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        """What to send in answer to a message, and the stage that follows. Called for keep-alives when READY too."""

    def is_control(self, message: bytes) -> bool:
        """Whether a message of a READY connection is the protocol's own (a keep-alive), not a delivery."""


class Subscriber(asyncio.Protocol):
    """A client connection.

    ``ready_at`` is the time at which its conversation was READY, 0 before; ``last_words`` the last message until then;
    ``left`` tells that the client side ended the connection.
    """

    __slots__ = (
        "_buffer", "_conversation", "_on_lost", "_on_message", "close_code", "host", "index", "last_words", "left",
        "on_ready", "ready_at", "stage", "transport", "upgraded",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        conversation: Conversation,
        on_message: OnMessage,
        on_lost: OnLost,
        host: str = "bench",
    ) -> None:
        self.index = index
        self.host = host
        self.stage = 0
        self.ready_at = 0.0
        self.upgraded = False
        self.left = False
        self.close_code = 0
        self.last_words = b""
        self.transport: asyncio.Transport | None = None
        self.on_ready: Callable[[], None] | None = None
        self._buffer = b""
        self._conversation = conversation
        self._on_message = on_message
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            f"GET {self._conversation.path()} HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .encode()
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        if self.upgraded and not self._buffer and data[0] == frames.FIN_TEXT:
            # The path of nearly all deliveries: exactly one whole message in one read.
            size, begin = data[1], 2
            if size == frames.LENGTH_16 and len(data) > 4:
                size, begin = (data[2] << 8) | data[3], 4
            if size + begin == len(data):
                self._text(data[begin:], now)
                return
        self._buffer += data
        if not self.upgraded and not self._upgrade(now):
            return
        found, self._buffer = frames.split(self._buffer)
        for opcode, payload in found:
            if opcode == frames.TEXT:
                self._text(payload, now)
            elif opcode == frames.PING:
                self._write(frames.encode(payload, frames.PONG))
            elif opcode == frames.CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
                self._reset()

    def _upgrade(self, now: float) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self.last_words = self._buffer
            self._reset()
            return False
        self.upgraded = True
        self._buffer = rest
        self._advance(*self._conversation.opening(), now)
        return True

    def _text(self, message: bytes, now: float) -> None:
        if self.stage != READY or self._conversation.is_control(message):
            self.last_words = message
            self._advance(*self._conversation.answer(self.stage, message), now)
        else:
            self._on_message(self, message, now)

    def _advance(self, texts: Sequence[str], stage: int, now: float) -> None:
        self.send(*texts)
        if stage == READY and self.stage != READY:
            self.stage, self.ready_at = stage, now
            if self.on_ready is not None:
                self.on_ready()
        self.stage = stage

    def send(self, *texts: str) -> None:
        """Send text messages in one write."""
        if texts:
            self._write(b"".join(frames.encode(text.encode()) for text in texts))

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)

    def close(self) -> None:
        """End the connection without a word, as a page that is closed does."""
        self.left = True
        if self.transport is not None:
            self.transport.abort()

    def abort(self) -> None:
        """End it by a reset, so that the client side keeps no TIME_WAIT entry."""
        self.left = True
        self._reset()

    def _reset(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            handle = self.transport.get_extra_info("socket")
            if handle is not None:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
