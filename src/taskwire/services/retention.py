"""Removes what is past its time: finished tasks with events and files, Idempotency-Keys, refresh tokens."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from taskwire.services.accounts import AccountService
from taskwire.services.ports import Provider, Runner
from taskwire.store.tasks import TaskReader

log = structlog.get_logger(__name__)

_AT_ONCE = 200


class Retention:
    """Looks every ``interval`` seconds. ``keep_tasks`` 0 keeps finished tasks for ever."""

    def __init__(
        self,
        *,
        reader: TaskReader,
        accounts: AccountService,
        providers: Iterable[Provider],
        clock: Callable[[], int],
        keep_tasks: float,
        keep_keys: float,
        interval: float,
    ) -> None:
        self._reader = reader
        self._accounts = accounts
        self._runners = [provider for provider in providers if isinstance(provider, Runner)]
        self._clock = clock
        self._keep_tasks_ms = int(keep_tasks * 1000)
        self._keep_keys_ms = int(keep_keys * 1000)
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="retention")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("retention.failed")
            await asyncio.sleep(self._interval)

    async def _forget(self, id: str) -> None:
        for runner in self._runners:
            try:
                await runner.forget(id)
            except Exception:  # the task itself is gone already: nobody will come back for the others
                log.warning("retention.files_left", taskId=id, exc_info=True)

    async def sweep(self) -> int:
        """Remove everything that is past its time now; the number of tasks removed."""
        now, removed = self._clock(), 0
        await self._reader.expire_idempotency_keys(now - self._keep_keys_ms)
        await self._accounts.purge()
        while self._keep_tasks_ms:
            ids = await self._reader.expire(now - self._keep_tasks_ms, limit=_AT_ONCE)
            for id in ids:
                await self._forget(id)
            removed += len(ids)
            if len(ids) < _AT_ONCE:
                break
            await asyncio.sleep(0)  # other writers get their turn
        if removed:
            log.info("retention.removed", tasks=removed)
        return removed
