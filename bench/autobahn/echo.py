"""An echo server made of Taskwire's WebSocket layer alone: what the Autobahn fuzzing client talks to.

All messages go out through the framing that was negotiated, so that compressed frames are tested as well.
"""

import argparse
import asyncio
import logging
from typing import Final, cast

import uvloop
from websockets.http11 import Request

from taskwire.wire.websocket import BinaryMessage, TextMessage, WebSocketSession

MAX_SIZE: Final = 32 << 20
"""Bytes of a message; the largest of the suite has 16 MiB."""

TEXT_TO_BINARY: Final = 0x01 ^ 0x02
"""Makes the opcode of a text frame that of a binary one; FIN and the reserved bits stay."""

_quiet: Final = logging.getLogger("autobahn.echo")
_quiet.setLevel(logging.CRITICAL)  # broken frames are all that is to be expected here


class Echo(asyncio.Protocol):
    """One connection: accepts every valid handshake and sends back every message."""

    def __init__(self) -> None:
        self._wire = WebSocketSession(
            max_size=MAX_SIZE, offer_deflate=True, deflate_min_size=1, logger=_quiet
        )
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        events = self._wire.receive(data)
        if self._wire.open:
            # Pongs go before the replies (RFC 6455 section 5.5.2: as soon as is practical), a close after them.
            self._flush(transport)
        for event in events:
            if isinstance(event, TextMessage):
                transport.write(self._wire.framing(event.text.encode()))
            elif isinstance(event, BinaryMessage):
                frame = self._wire.framing(event.data)
                transport.write(bytes((frame[0] ^ TEXT_TO_BINARY,)) + frame[1:])
            elif isinstance(event, Request):
                self._wire.accept(event)
                transport.write(self._wire.take())
        self._flush(transport)

    def eof_received(self) -> None:
        self._wire.receive_eof()
        if self._transport is not None:
            self._flush(self._transport)

    def _flush(self, transport: asyncio.Transport) -> None:
        data = self._wire.take()
        if data:
            transport.write(data)
        if self._wire.done:
            transport.close()

    # A peer that does not read what it gets back is not read from either.

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


async def serve(port: int) -> None:
    """Listen on the loopback until cancelled; port 0 takes a free one. The port is printed once it is open."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    async with server:
        print(f"echo server on port {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.autobahn.echo", description=__doc__)
    parser.add_argument("--port", type=int, default=9001, help="default: %(default)s")
    options = parser.parse_args()
    try:
        uvloop.run(serve(options.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
