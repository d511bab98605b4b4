"""The servers that are measured side by side; Taskwire is the first, so that the others get its message size."""

from typing import Final

from bench.peers.base import Peer
from bench.peers.nchan import NginxNchan
from bench.peers.node_socketio import NodeSocketIO
from bench.peers.node_ws import NodeWs
from bench.peers.python_socketio import PythonSocketIO
from bench.peers.taskwire import Taskwire

PEERS: Final[tuple[type[Peer], ...]] = (Taskwire, NodeWs, NodeSocketIO, PythonSocketIO, NginxNchan)
