"""A small HTTP/1.1 client with keep-alive and pipelining: requests go out at once, answers come back in order."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, cast


class Answer(NamedTuple):
    """A response: status code and body."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class HttpError(Exception):
    """An answer with another status than the caller needed."""


def request_bytes(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, host: str = "bench"
) -> bytes:
    """A whole request, ready to be written."""
    fields = {"Host": host, "Content-Length": str(len(body)), **(headers or {})}
    if body and "Content-Type" not in fields:
        fields["Content-Type"] = "application/json"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class HttpClient(asyncio.Protocol):
    """One connection. ``send`` queues a request and returns a future of its ``Answer``."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, host: str, port: int) -> "HttpClient":
        """Open a connection. Raises OSError when nobody listens."""
        _, client = await asyncio.get_running_loop().create_connection(cls, host, port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._waiting)

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Write a request made by ``request_bytes``. The future fails with ConnectionError when the connection goes."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(ConnectionResetError("the connection is closed"))
        else:
            self._waiting.append(future)
            self._transport.write(request)
        return future

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """A JSON request and its JSON answer. Raises HttpError for a status of 400 or more."""
        fields = dict(headers or {})
        if token:
            fields["Authorization"] = f"Bearer {token}"
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.send(request_bytes(method, path, data, fields))
        if answer.status >= 400:
            raise HttpError(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer.json() if answer.body else None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._waiting and (answer := self._take()) is not None:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(answer)

    def _take(self) -> Answer | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        begin = end + 4
        status = int(status_line.split(" ", 2)[1])
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return self._take_chunked(status, begin)
        size = int(fields.get("content-length", "0"))
        if len(self._buffer) < begin + size:
            return None
        body = bytes(self._buffer[begin : begin + size])
        del self._buffer[: begin + size]
        return Answer(status, body)

    def _take_chunked(self, status: int, begin: int) -> Answer | None:
        body = b""
        while (line_end := self._buffer.find(b"\r\n", begin)) >= 0:
            size = int(self._buffer[begin:line_end].split(b";")[0], 16)
            begin = line_end + 2
            if len(self._buffer) < begin + size + 2:
                return None
            body += self._buffer[begin : begin + size]
            begin += size + 2
            if size == 0:
                del self._buffer[:begin]
                return Answer(status, body)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the server closed the connection"))
                future.exception()  # a future nobody waits for any more must not be reported as forgotten

    def close(self) -> None:
        """Close the connection; requests without an answer fail."""
        if self._transport is not None:
            self._transport.abort()
