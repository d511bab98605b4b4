"""Rows kept for a moment: shared queries, nothing older than the last known change, bounded memory."""

import asyncio
from collections.abc import Sequence

import pytest

from taskwire.services.cache import CachedLoader

pytestmark = pytest.mark.anyio


class Table:
    """Rows by id; each query waits for ``go`` if it is closed, and gives what was there when it began."""

    def __init__(self, **rows: str) -> None:
        self.rows = rows
        self.queries: list[list[str]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.error: Exception | None = None
        self.now = 100.0
        self.loader = CachedLoader[str](self.fetch, keep=3, size=10, clock=lambda: self.now)

    async def fetch(self, ids: Sequence[str]) -> dict[str, str]:
        self.queries.append(list(ids))
        found = {id: self.rows[id] for id in ids if id in self.rows}
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return found


async def test_a_row_is_read_once_in_its_time() -> None:
    table = Table(a="1")
    assert [await table.loader.get("a") for _ in range(3)] == ["1"] * 3
    table.now += 2.9
    assert await table.loader.get("a") == "1"
    assert len(table.queries) == 1
    table.rows["a"] = "2"
    table.now += 0.1
    assert await table.loader.get("a") == "2"
    assert len(table.queries) == 2


async def test_that_there_is_none_is_not_remembered() -> None:
    table = Table()
    assert await table.loader.get("a") is None
    table.rows["a"] = "1"
    assert await table.loader.get("a") == "1"
    assert len(table.loader) == 1


async def test_five_thousand_at_once_share_a_few_queries() -> None:
    table = Table(**{f"id{number}": str(number) for number in range(2500)})
    found = await asyncio.gather(*(table.loader.get(f"id{number % 2500}") for number in range(5000)))
    assert found == [str(number % 2500) for number in range(5000)]
    assert len(table.queries) <= 5


async def test_memory_is_bounded_and_the_newest_stay() -> None:
    table = Table(**{f"id{number}": "x" for number in range(100)})
    for number in range(100):
        await table.loader.get(f"id{number}")
    assert len(table.loader) == 10
    await table.loader.get("id99")
    assert len(table.queries) == 100
    assert table.loader._asking == {}


async def test_a_change_counts_at_once() -> None:
    table = Table(a="1", b="1")
    await asyncio.gather(table.loader.get("a"), table.loader.get("b"))
    table.rows.update(a="2", b="2")
    table.loader.forget("a")
    assert await table.loader.get("a") == "2"
    assert await table.loader.get("b") == "1"
    table.loader.clear()
    assert await table.loader.get("b") == "2"


@pytest.mark.parametrize("change", ["forget", "clear"])
async def test_a_change_during_the_query_reaches_those_who_wait(change: str) -> None:
    table = Table(a="old")
    table.go.clear()
    waiting = [asyncio.create_task(table.loader.get("a")) for _ in range(3)]
    await table.begun.wait()
    table.rows["a"] = "new"
    if change == "forget":
        table.loader.forget("a")
    else:
        table.loader.clear()
    table.go.set()
    assert await asyncio.gather(*waiting) == ["new"] * 3
    assert await table.loader.get("a") == "new"


async def test_a_failure_is_everybodys_and_is_not_remembered() -> None:
    table = Table(a="1")
    table.error = RuntimeError("away")
    outcomes = await asyncio.gather(*(table.loader.get("a") for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["away"] * 3
    table.error = None
    assert await table.loader.get("a") == "1"


async def test_one_who_gives_up_does_not_take_the_others_along() -> None:
    table = Table(a="1")
    table.go.clear()
    first, second = (asyncio.create_task(table.loader.get("a")) for _ in range(2))
    await table.begun.wait()
    first.cancel()
    table.go.set()
    assert await second == "1"
    assert first.cancelled()
