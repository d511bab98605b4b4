"""What the bench asks of a server it measures: how to start it, how to subscribe, how to publish."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from bench.load.http import HttpClient, request_bytes
from bench.load.subscriber import Conversation

FOLDER: Final = Path(__file__).resolve().parent
BENCH: Final = FOLDER.parent
CACHE: Final = BENCH / ".cache"
CHANNEL: Final = "bench"
MARK: Final = b"seq:"
DIGITS: Final = 7


def sequence_number(message: bytes) -> int:
    """The number that ``mark`` put into a message; -1 if there is none."""
    at = message.find(MARK)
    return int(message[at + 4 : at + 4 + DIGITS]) if at >= 0 else -1


def mark(number: int, room: int) -> str:
    """A text of ``room`` characters that carries a sequence number."""
    return f"{MARK.decode()}{number:0{DIGITS}d} ".ljust(room, "x")


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is started."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class Peer(ABC):
    """A server under measurement. One object serves one start of it."""

    key: ClassVar[str]
    label: ClassVar[str]
    ready_path: ClassVar[str] = "/healthz"

    def __init__(self, message_bytes: int) -> None:
        """``message_bytes`` is the length of the JSON message that every subscriber gets."""
        self.message_bytes = message_bytes

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """Why the server cannot run here; empty if it can."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Name and version of what is measured, runtime included."""

    @abstractmethod
    def command(self, port: int, folder: Path) -> Command:
        """The command that serves ``port`` on 127.0.0.1; ``folder`` is its own and empty."""

    async def prepare(self, port: int) -> None:
        """What is to be done once between start and the first subscriber."""
        return

    @abstractmethod
    def conversation(self, index: int) -> Conversation:
        """What subscriber number ``index`` says to be subscribed to the one channel."""

    def publication(self, number: int) -> bytes:
        """The HTTP request that makes the server send message ``number`` to all subscribers."""
        return request_bytes("POST", f"/publish?channel={CHANNEL}", message_of(number, self.message_bytes))

    async def publish_once(self, port: int) -> None:
        """Send one message, to warm the path up."""
        client = await HttpClient.connect("127.0.0.1", port)
        try:
            await client.send(self.publication(0))
        finally:
            client.close()


def message_of(number: int, size: int) -> bytes:
    """A message shaped like Taskwire's ``taskProgress``, ``size`` bytes of JSON."""
    message = {
        "type": "taskProgress",
        "timestamp": 1764000000000,
        "payload": {
            "videoId": "video_0190a5b0c1d27e3f8a4b5c6d7e8f9012",
            "status": "PROCESSING",
            "progress": 42,
            "currentStep": 42,
            "totalSteps": 100,
            "message": "",
            "estimatedTimeRemaining": 12,
            "revision": 1000 + number,
        },
    }
    bare = len(json.dumps(message, separators=(",", ":")))
    message["payload"]["message"] = mark(number, max(0, size - bare))  # type: ignore[index]
    return json.dumps(message, separators=(",", ":")).encode()


class SocketIO:
    """A client of a Socket.IO 4 server (Engine.IO 4, WebSocket only), as ``transports: ['websocket']`` makes one."""

    __slots__ = ()

    def path(self) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    def opening(self) -> tuple[Sequence[str], int]:
        return (), 0

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        if message == b"2":
            return ("3",), stage
        if stage == 0 and message.startswith(b"0"):
            return ("40",), 1
        if stage == 1 and message.startswith(b"40"):
            return (f'420["subscribe","{CHANNEL}"]',), 2
        if stage == 2 and message.startswith(b"430"):
            return (), -1
        return (), stage

    def is_control(self, message: bytes) -> bool:
        return message == b"2"
