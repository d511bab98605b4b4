"""Looks whether the rights of logged-in users were changed elsewhere: on another node, or by the command line.

Changes made in this process reach its connections at once. Those made in another one are found here, with one query for
many users, however many connections they have.
"""

import asyncio
from collections.abc import Callable, Hashable

import structlog

from taskwire.core.errors import Unavailable
from taskwire.server.connections import Connections
from taskwire.services.accounts import AccountService

log = structlog.get_logger(__name__)

_AT_ONCE = 500


class Recheck:
    """Every ``interval`` seconds; ``changed`` is called with the id of each user whose rights are not as they were."""

    def __init__(
        self,
        accounts: AccountService,
        connections: Connections,
        *,
        interval: float,
        changed: Callable[[str], None],
    ) -> None:
        self._accounts = accounts
        self._connections = connections
        self._interval = interval
        self._changed = changed
        self._known: dict[str, Hashable] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="recheck")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except Unavailable:
                log.warning("recheck.unavailable")
            except Exception:
                log.exception("recheck.failed")

    async def look(self) -> None:
        """Compare what the logged-in users may do with what it was at the last look."""
        users = self._connections.users()
        known, self._known = self._known, {}
        for start in range(0, len(users), _AT_ONCE):
            part = users[start : start + _AT_ONCE]
            found = await self._accounts.rights(part)
            for user_id in part:
                now = self._known[user_id] = found.get(user_id)
                # One who is new here may have logged in on what was in memory, or before a change and this first look.
                if user_id not in known or known[user_id] != now:
                    self._changed(user_id)
