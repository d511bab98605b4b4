"""Look-ups asked for at the same time become one query, and none is answered with what is older than the question."""

import asyncio
from collections.abc import Sequence

import pytest

from taskwire.services.loader import BatchLoader
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio


class Source:
    """Answers with how often it was asked; may be held up, and may fail."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate: asyncio.Event | None = None
        self.failures: list[Exception] = []

    async def fetch(self, ids: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(ids))
        answer = {id: len(self.asked) for id in ids if not id.startswith("no")}
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return answer


async def test_look_ups_of_one_moment_become_one_query() -> None:
    source = Source()
    loader = BatchLoader(source.fetch)
    found = await asyncio.gather(*(loader.get(id) for id in ("a", "b", "a", "nothing")))
    assert found == [1, 1, 1, None]
    assert source.asked == [["a", "b", "nothing"]]


async def test_a_query_takes_only_so_many() -> None:
    source = Source()
    loader = BatchLoader(source.fetch, limit=3)
    await asyncio.gather(*(loader.get(str(number)) for number in range(8)))
    assert [len(ids) for ids in source.asked] == [3, 3, 2]


async def test_a_look_up_never_joins_a_query_that_has_begun() -> None:
    source = Source()
    source.gate = asyncio.Event()
    loader = BatchLoader(source.fetch)
    first = asyncio.create_task(loader.get("a"))
    await eventually_async(lambda: source.asked, every=0)
    second, third = (asyncio.create_task(loader.get(id)) for id in ("a", "b"))
    await asyncio.sleep(0)
    source.gate.set()
    assert [await first, await second, await third] == [1, 2, 2]
    assert source.asked == [["a"], ["a", "b"]]


async def test_a_failure_reaches_those_who_asked_and_nobody_else() -> None:
    source = Source()
    source.failures = [ZeroDivisionError()]
    loader = BatchLoader(source.fetch, limit=1)
    failed, fine = await asyncio.gather(loader.get("a"), loader.get("b"), return_exceptions=True)
    assert isinstance(failed, ZeroDivisionError)
    assert fine == 2
    assert await loader.get("a") == 3


async def test_whoever_gives_up_does_not_take_the_answer_from_others() -> None:
    source = Source()
    source.gate = asyncio.Event()
    loader = BatchLoader(source.fetch)
    one, other = (asyncio.create_task(loader.get("a")) for _ in range(2))
    await eventually_async(lambda: source.asked, every=0)
    one.cancel()
    source.gate.set()
    assert await other == 1
    with pytest.raises(asyncio.CancelledError):
        await one


async def test_a_failure_that_nobody_waits_for_any_more_is_no_trouble() -> None:
    source = Source()
    source.gate = asyncio.Event()
    source.failures = [ZeroDivisionError()]
    loader = BatchLoader(source.fetch)
    waiting = asyncio.create_task(loader.get("a"))
    await eventually_async(lambda: source.asked, every=0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    source.gate.set()
    assert await loader.get("b") == 2
