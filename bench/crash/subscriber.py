"""A subscriber that comes back whenever it is cut, and checks every message against all it has seen before."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import orjson

from bench.crash.ledger import FINAL_TYPES, Ledger, Sight, pushed
from bench.load.subscriber import READY, Subscriber
from bench.product import HOST, auth_text, subscribe_text

PUSHES: Final = {"taskProgress", *FINAL_TYPES}
BACKOFF: Final = 0.2
"""Longest pause before a new attempt to connect, in seconds; each is drawn at random."""


class _Follow:
    """Logs in and subscribes at once; every answer goes to the checker."""

    def __init__(self, token: str, tasks: Sequence[str]) -> None:
        self._texts = (auth_text(token), *map(subscribe_text, tasks))

    def path(self) -> str:
        return "/ws"

    def opening(self) -> tuple[Sequence[str], int]:
        return self._texts, READY

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        return (), stage

    def is_control(self, message: bytes) -> bool:
        return False


class Follower:
    """Follows ``tasks`` to their ends over any number of connections.

    ``keen`` ones subscribe to everything at each connection, finished tasks included; the others only to what has not
    ended for them yet.
    """

    def __init__(
        self,
        name: str,
        port: int,
        token: str,
        tasks: Sequence[str],
        keen: bool,
        ledger: Ledger,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.connections = 0
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.down.set()
        self.settled = asyncio.Event()
        self._port, self._token, self._tasks, self._keen = port, token, tasks, keen
        self._ledger, self._chance = ledger, chance
        self._last: dict[str, Sight] = {}
        self._here: dict[str, int] = {}  # revision last seen by each subscription of this connection
        self._ended: set[str] = set()  # subscriptions of this connection that have had their end
        self._wire: Subscriber | None = None
        self._lost = asyncio.Event()
        self._pong = asyncio.Event()

    async def live(self) -> None:
        """Connect, and connect again; runs until cancelled."""
        while True:
            wanted = [task for task in self._tasks if self._keen or not self._has_ended(task)]
            await self._connect(wanted)
            await self._lost.wait()
            self.up.clear()
            self.down.set()
            await asyncio.sleep(self._chance.random() * BACKOFF)

    async def _connect(self, wanted: Sequence[str]) -> None:
        self._here, self._ended = dict.fromkeys(wanted, 0), set()
        self._lost.clear()
        wire = Subscriber(0, _Follow(self._token, wanted), self._take, self._on_lost)
        try:
            await asyncio.get_running_loop().create_connection(lambda: wire, HOST, self._port)
        except OSError:
            self._lost.set()
            return
        self._wire = wire
        self.down.clear()
        self.connections += 1
        if not wanted:
            self.up.set()

    def _on_lost(self, _wire: Subscriber) -> None:
        self._lost.set()

    def _has_ended(self, task: str) -> bool:
        return task in self._last and self._last[task].final

    def _take(self, _wire: Subscriber, text: bytes, _now: float) -> None:
        message = orjson.loads(text)
        type = message["type"]
        if type in PUSHES:
            self._check(message["payload"]["videoId"], pushed(message))
        elif type == "pong":
            self._pong.set()
        elif type == "error":
            error = message["payload"]
            if not error.get("retryable"):
                self._violated(f"got the error {error}")
            self.cut()

    def _check(self, task: str, sight: Sight) -> None:
        if task not in self._here:
            self._violated(f"got {sight} of {task} without having subscribed to it")
            return
        last, here = self._last.get(task), self._here[task]
        if task in self._ended:
            self._violated(f"got {sight} of {task} after the end, in one subscription")
        if sight.revision <= here:
            self._violated(f"got revision {sight.revision} of {task} after {here}, in one subscription")
        if last is not None:
            if sight.revision < last.revision or sight.attempt < last.attempt:
                self._violated(f"{task} went back from {last} to {sight}")
            if sight.attempt == last.attempt and sight.progress < last.progress:
                self._violated(f"the progress of {task} went back from {last} to {sight}")
            if last.final and sight != last:
                self._violated(f"{task} had ended as {last} and came back as {sight}")
        self._ledger.saw(self.name, task, sight)
        self._last[task], self._here[task] = sight, sight.revision
        if sight.final:
            self._ended.add(task)
        if all(self._here.values()):
            self.up.set()
        if all(map(self._has_ended, self._tasks)):
            self.settled.set()

    def _violated(self, what: str) -> None:
        self._ledger.violated(f"{self.name}: {what}")

    def cut(self) -> None:
        """Drop the connection; ``live`` makes a new one."""
        if self._wire is not None:
            self._wire.close()

    def missing(self) -> list[str]:
        """Tasks whose end has not been seen."""
        return [task for task in self._tasks if not self._has_ended(task)]

    async def ask_all_again(self) -> None:
        """Come back once more with subscriptions to everything, all of it finished by now."""
        self._keen = True
        self.up.clear()
        self.cut()
        await self.up.wait()

    async def quiet(self) -> None:
        """Wait until all that the server had sent so far has been read: messages of one connection keep their order."""
        self._pong.clear()
        if self._wire is not None:
            self._wire.send('{"type":"ping"}')
        await self._pong.wait()
        for task in self._tasks:
            if task not in self._ended:
                self._violated(f"{task} has ended, but a new subscription was not told")
