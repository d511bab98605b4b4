"""uvicorn's HTTP connection, with limits on what may come before a request: neither it nor its parser has any."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers, which are held in memory before anybody knows who is asking."""
HEAD_TIMEOUT: Final = 20.0
"""Seconds that they may take, also for a connection that never says a word."""


class HttpConnection(HttpToolsProtocol):
    """Closes a connection whose request does not begin in time, or begins with too much."""

    _head: int | None = 0  # bytes of the head so far; None while a request is under way
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_done()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0  # of the next one; how long that may be waited for, uvicorn sees to

    def _await_head(self) -> None:
        self._head_done()
        self._head = 0
        self._patience = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _head_done(self) -> None:
        self._head = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
