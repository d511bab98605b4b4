"""Rows that many ask for at once and again: kept in memory for a moment, and never older than the last known change."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from taskwire.services.loader import BatchLoader

T = TypeVar("T")


class CachedLoader(Generic[T]):
    """``get`` by id from memory for ``keep`` seconds, else through ``fetch``, which takes many ids at once.

    At most ``size`` rows are held, the latest ones read. That there is none is not remembered.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Awaitable[dict[str, T]]],
        *,
        keep: float,
        size: int,
        clock: Callable[[], float],
    ) -> None:
        self._loader = BatchLoader(fetch)
        self._keep = keep
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._asking: dict[str, _Asking] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, id: str) -> T | None:
        """The row, or None if there is none. Raises what ``fetch`` raises."""
        kept = self._kept.get(id)
        if kept is not None and self._clock() - kept[0] < self._keep:
            return kept[1]
        asking = self._asking.setdefault(id, _Asking())
        asking.count += 1
        try:
            while True:
                changes, at = asking.changes, self._clock()
                row = await self._loader.get(id)
                if changes == asking.changes:
                    break
        finally:
            asking.count -= 1
            if not asking.count:
                del self._asking[id]
        if row is not None:
            self._kept[id] = at, row
            self._kept.move_to_end(id)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return row

    def forget(self, id: str) -> None:
        """The row has changed: whoever is given it from now on, also those who wait for it, gets the new one."""
        self._kept.pop(id, None)
        if (asking := self._asking.get(id)) is not None:
            asking.changes += 1

    def clear(self) -> None:
        """As ``forget``, for every row."""
        self._kept.clear()
        for asking in self._asking.values():
            asking.changes += 1


class _Asking:
    """A row that is being read: by how many, and how often it changed meanwhile."""

    __slots__ = ("changes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.changes = 0
