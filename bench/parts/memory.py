"""Part B: resident memory of the server for each idle, subscribed connection."""

import asyncio

from bench.parts.common import running
from bench.peers.base import Peer

SETTLE = 3.0
"""Seconds before each look, so that the server can finish what it began."""


async def measure(peer: Peer, connections: int) -> float:
    """Bytes per connection: the growth of resident memory from one connection to ``connections`` more."""
    async with running(peer) as server:
        group = server.group(peer)
        await group.grow(1)
        await peer.publish_once(server.port)
        await asyncio.sleep(SETTLE)
        before = server.process.memory_bytes()
        await group.grow(1 + connections)
        await asyncio.sleep(SETTLE)
        after = server.process.memory_bytes()
        if group.lost:
            raise RuntimeError(f"{peer.label} lost {group.lost} connections")
        await group.close()
    return (after - before) / connections
