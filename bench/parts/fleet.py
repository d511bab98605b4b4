"""Taskwire with many external tasks and one watcher on each: the set-up of the parts that look at whole updates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.load.group import Group
from bench.parts.common import HOST, Running, running
from bench.peers.base import DIGITS, mark
from bench.peers.taskwire import Taskwire
from bench.product import ADMIN, PRODUCER, Api, Watcher

SWEEPS: Final = 9000
"""Most updates that one task can get here: progress grows by a hundredth of a percent each time and must not end."""

ROOM: Final = 5 + DIGITS


@dataclass(slots=True)
class Fleet:
    """Tasks and who watches them. Watcher ``i`` follows task ``i``; ``sweep`` counts the updates each task has had."""

    server: Running
    token: str
    producers: list[Api]
    tasks: list[str]
    group: Group
    watchers: list[Watcher] = field(default_factory=list)
    sweep: int = 0

    def batch(self, begin: int, end: int, sweep: int) -> bytes:
        """The request with one report for each of the tasks ``begin`` to ``end``, distinct from every other sweep's."""
        assert sweep <= SWEEPS, "progress would reach the end"
        common = {
            "progress": sweep / 100,
            "currentStep": sweep,
            "totalSteps": 10_000,
            "message": mark(sweep, ROOM),
        }
        reports = [{"taskId": task, **common} for task in self.tasks[begin:end]]
        return self.producers[0].request("POST", "/reports", {"reports": reports})


@asynccontextmanager
async def fleet(tasks: int, producers: int = 2) -> AsyncIterator[Fleet]:
    """A started server with its tasks, and a group of watchers that is still empty."""
    peer = Taskwire(0)
    async with running(peer) as server:
        admin = await Api.connect(server.port, ADMIN)
        connections = [await Api.connect(server.port, PRODUCER)]
        while len(connections) < producers:
            connections.append(await Api.connect(server.port))
        ids = await connections[0].add_tasks(tasks)
        watchers: list[Watcher] = []

        def conversation(index: int) -> Watcher:
            watcher = Watcher(admin.token, ids[index])
            watchers.append(watcher)
            return watcher

        group = Group(HOST, server.port, conversation)
        yield Fleet(server, admin.token, connections, ids, group, watchers)
        await group.close()
        for api in (admin, *connections):
            api.close()
