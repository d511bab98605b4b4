"""A client of the *tasks* contract as its front-end team would write it: plain ``websockets`` and JSON."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Self

import anyio
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.support.timing import scaled

Message = dict[str, Any]
FINAL = ("taskCompleted", "taskFailed")


class ContractClient:
    """One connection. ``messages`` holds everything received, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        return cls(await connect(url, max_size=None, proxy=None, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def send(self, type: str, payload: Any = None, **more: Any) -> None:
        message = {"type": type, **more} if payload is None else {"type": type, "payload": payload, **more}
        await self.socket.send(json.dumps(message))

    async def receive(self, timeout: float = 20) -> Message:
        """The next message; fails after ``timeout`` seconds."""
        with anyio.fail_after(scaled(timeout)):
            message: Message = json.loads(await self.socket.recv())
        self.messages.append(message)
        return message

    async def until(self, *types: str, timeout: float = 30) -> Message:
        """Receive until a message of one of ``types``, and return it."""
        with anyio.fail_after(scaled(timeout)):
            while True:
                message = await self.receive(timeout)
                if message["type"] in types:
                    return message

    async def closed(self, timeout: float = 20) -> int:
        """Receive until the server closes; the close code."""
        close = None
        while close is None:
            try:
                await self.receive(timeout)
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd is not None, "the socket was cut without a close frame"  # noqa: PT017
                close = closed.rcvd
        return close.code

    async def log_in(self, token: str, **more: Any) -> Message:
        await self.send("auth", {"token": token, **more})
        message = await self.until("authSuccess", "error")
        assert message["type"] == "authSuccess", message
        return message

    async def follow(self, *task_ids: str) -> None:
        for task_id in task_ids:
            await self.send("subscribe_task", {"videoId": task_id})

    def of(self, task_id: str, *types: str) -> list[Message]:
        """The payloads received for a task, of the given types (default: those a subscriber gets)."""
        wanted: Sequence[str] = types or ("taskProgress", *FINAL)
        return [
            m["payload"] for m in self.messages if m["type"] in wanted and m["payload"]["videoId"] == task_id
        ]


def check_history(payloads: Sequence[Message]) -> None:
    """One subscription's history is legal: revisions grow, progress never falls within an attempt, one end, last."""
    assert payloads, "nothing was received"
    revisions = [payload["revision"] for payload in payloads]
    assert revisions == sorted(set(revisions)), f"revisions repeat or go back: {revisions}"
    for before, after in itertools.pairwise(payloads):
        if "progress" in after and before["attempt"] == after["attempt"]:
            assert after["progress"] >= before["progress"], (before, after)
    ends = [payload for payload in payloads if payload["status"] in ("completed", "failed")]
    assert len(ends) == 1, f"{len(ends)} endings in one subscription"
    assert payloads[-1] is ends[0], "something came after the end"
