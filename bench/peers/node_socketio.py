"""Peer: Node with Socket.IO, WebSocket transport."""

from pathlib import Path

from bench.peers import node
from bench.peers.base import FOLDER, Command, Peer, SocketIO


class NodeSocketIO(Peer):
    key = "socketio"
    label = "Node Socket.IO"

    @classmethod
    def missing(cls) -> str:
        return node.missing("socket.io")

    @classmethod
    def version(cls) -> str:
        return node.version("socket.io")

    def command(self, port: int, folder: Path) -> Command:
        return Command(["node", str(FOLDER / "node_socketio.mjs"), str(port)], {"NODE_ENV": "production"})

    def conversation(self, index: int) -> SocketIO:
        return SocketIO()
