"""Waits for conditions with a time limit, never for a time; one variable stretches every limit."""

import os
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeVar, overload

import anyio

T = TypeVar("T")

SCALE: Final = float(os.environ.get("TASKWIRE_TEST_TIMEOUT_SCALE", "1"))
"""Factor on every time limit, for slow machines."""

POLL: Final = 0.01  # seconds between two looks


def scaled(seconds: float) -> float:
    """A time limit in seconds, stretched by ``TASKWIRE_TEST_TIMEOUT_SCALE``."""
    return seconds * SCALE


def eventually(check: Callable[[], T], timeout: float = 10, *, every: float = POLL) -> T:
    """Call ``check`` until it returns something true, and return that; an AssertionError inside it means "not yet".

    Raises AssertionError after ``timeout`` seconds (scaled), naming the last result or the last failed assertion.
    In async tests use ``eventually_async``: this one blocks the event loop.
    """
    wait = _Wait(timeout)
    while True:
        try:
            if result := check():
                return result
            wait.over(result)
        except AssertionError as error:
            wait.over(error)
        time.sleep(every)


@overload
async def eventually_async(
    check: Callable[[], Awaitable[T]], timeout: float = 10, *, every: float = POLL
) -> T: ...
@overload
async def eventually_async(check: Callable[[], T], timeout: float = 10, *, every: float = POLL) -> T: ...
async def eventually_async(check: Callable[[], Any], timeout: float = 10, *, every: float = POLL) -> Any:
    """As ``eventually``, letting the event loop run between two looks; ``check`` may be a coroutine function."""
    wait = _Wait(timeout)
    while True:
        try:
            result = check()
            if isawaitable(result):
                result = await result
            if result:
                return result
            wait.over(result)
        except AssertionError as error:
            wait.over(error)
        await anyio.sleep(every)


class StillFalse(AssertionError):
    """What was waited for did not come true within the time limit."""


class _Wait:
    """A deadline that says what was seen last."""

    def __init__(self, timeout: float) -> None:
        self.limit = scaled(timeout)
        self.deadline = time.monotonic() + self.limit

    def over(self, last: object) -> None:
        """Raise if the time is up. A wait inside a wait that gave up is not asked again."""
        if isinstance(last, StillFalse):
            raise last
        if time.monotonic() >= self.deadline:
            seen = str(last) if isinstance(last, AssertionError) else f"the last result was {last!r}"
            raise StillFalse(f"not true within {self.limit:g} s: {seen}")
