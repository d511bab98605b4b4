"""Peer: Node with the ``ws`` library."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers import node
from bench.peers.base import CHANNEL, FOLDER, Command, Peer


class Plain:
    """A client that sends one subscription message and waits for its confirmation."""

    __slots__ = ()

    def path(self) -> str:
        return "/"

    def opening(self) -> tuple[Sequence[str], int]:
        return (f'{{"type":"subscribe","channel":"{CHANNEL}"}}',), 1

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        return (), -1 if b"subscribed" in message else stage

    def is_control(self, message: bytes) -> bool:
        return False


class NodeWs(Peer):
    key = "ws"
    label = "Node ws"

    @classmethod
    def missing(cls) -> str:
        return node.missing("ws")

    @classmethod
    def version(cls) -> str:
        return node.version("ws")

    def command(self, port: int, folder: Path) -> Command:
        return Command(["node", str(FOLDER / "node_ws.mjs"), str(port)], {"NODE_ENV": "production"})

    def conversation(self, index: int) -> Plain:
        return Plain()
