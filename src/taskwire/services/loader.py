"""Coalesces look-ups by id: those asked for at about the same time become one query."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class BatchLoader(Generic[T]):
    """``get`` by id through ``fetch``, which takes many ids at once. One query at a time, at most ``limit`` ids each.

    A look-up never joins a query that began before it was asked for, so what it gives is as new as the question.
    """

    def __init__(
        self, fetch: Callable[[Sequence[str]], Awaitable[dict[str, T]]], *, limit: int = 1000
    ) -> None:
        self._fetch = fetch
        self._limit = limit
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, id: str) -> T | None:
        """The thing, or None if there is none. Raises what ``fetch`` raises."""
        future = self._waiting.get(id)
        if future is None:
            future = self._waiting[id] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run(), name="batch-loader")
        return await asyncio.shield(future)

    async def _run(self) -> None:
        await asyncio.sleep(0)  # let everybody who asks in this turn of the loop get on
        while self._waiting:
            ids = list(self._waiting)[: self._limit]
            taken = {id: self._waiting.pop(id) for id in ids}
            try:
                found = await self._fetch(ids)
            except Exception as error:  # noqa: BLE001  whatever it is, those who asked get it
                for future in taken.values():
                    future.set_exception(error)
                    future.exception()  # everybody may have gone; that is no unhandled error
                continue
            for id, future in taken.items():
                future.set_result(found.get(id))
        self._task = None
