"""Password hashes: right or wrong, the same work for nobody, and a bounded load."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.services.passwords import MAX_LENGTH, Passwords
from tests.support.accounts import PASSWORD, QUICK
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(concurrency=2, min_length=8, hasher=QUICK)
    yield made
    made.close()


class Gate(PasswordHasher):
    """Counts how many check at once, and lets none go on until it is opened."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.open = threading.Event()
        self.inside = self.most = 0
        self.checked: list[str] = []

    def verify(self, hash: Any, password: Any) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.checked.append(str(hash))
        assert self.open.wait(30)
        self.inside -= 1
        return super().verify(hash, password)


async def test_a_password_is_right_or_wrong(passwords: Passwords) -> None:
    stored = await passwords.hash(PASSWORD)
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
    assert await passwords.verify(stored, PASSWORD)
    assert not await passwords.verify(stored, PASSWORD + " ")
    assert not await passwords.verify(stored, "")
    assert await passwords.hash(PASSWORD) != stored


async def test_letters_may_be_composed_in_any_way(passwords: Passwords) -> None:
    assert await passwords.verify(await passwords.hash("Pässwörter"), "Pa\u0308sswo\u0308rter")


@pytest.mark.parametrize("stored", ["", "not a hash", "$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWE$!!"])
async def test_a_damaged_hash_fits_no_password(passwords: Passwords, stored: str) -> None:
    assert not await passwords.verify(stored, PASSWORD)


@pytest.mark.parametrize("password", ["\ud800" * 8, "x" * (MAX_LENGTH + 1), "", "\0"])
async def test_strange_passwords_are_wrong_and_no_error(passwords: Passwords, password: str) -> None:
    assert not await passwords.verify(await passwords.hash(PASSWORD), password)
    assert not await passwords.verify(await passwords.hash("x" * MAX_LENGTH), password)
    assert not await passwords.verify(None, password)


async def test_nobody_has_no_password_and_costs_the_same_work() -> None:
    hasher = Gate()
    hasher.open.set()
    passwords = Passwords(concurrency=1, min_length=8, hasher=hasher)
    try:
        assert not await passwords.verify(None, PASSWORD)
        assert not await passwords.verify(await passwords.hash(PASSWORD), "a wrong one")
    finally:
        passwords.close()
    decoy, real = hasher.checked
    assert extract_parameters(decoy) == extract_parameters(real)


async def test_the_default_is_what_rfc_9106_recommends() -> None:
    passwords = Passwords(concurrency=1, min_length=8)
    try:
        parameters = extract_parameters(await passwords.hash(PASSWORD))
        started = time.perf_counter()
        await passwords.verify(None, PASSWORD)
        assert time.perf_counter() - started > 0.005  # the decoy is checked in earnest
    finally:
        passwords.close()
    assert (parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (3, 65536, 4)


async def test_hashes_of_other_parameters_are_to_be_renewed(passwords: Passwords) -> None:
    assert passwords.needs_rehash(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD))
    assert not passwords.needs_rehash(await passwords.hash(PASSWORD))


@pytest.mark.parametrize("password", ["1234567", "x" * (MAX_LENGTH + 1), "\udfff" * 8])
def test_rules(passwords: Passwords, password: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^The password must"):
        passwords.check_rules(password)
    passwords.check_rules("12345678")
    passwords.check_rules("x" * MAX_LENGTH)


async def test_only_so_many_are_computed_at_once_and_only_so_many_wait() -> None:
    hasher = Gate()
    passwords = Passwords(concurrency=2, min_length=8, max_waiting=3, hasher=hasher)
    try:
        stored = hasher.hash(PASSWORD)
        checks = [asyncio.create_task(passwords.verify(stored, PASSWORD)) for _ in range(5)]
        await eventually_async(lambda: hasher.inside == 2)
        with pytest.raises(TaskwireError) as caught:
            await passwords.verify(stored, PASSWORD)
        assert caught.value.code == "RATE_LIMITED"
        assert caught.value.retry_after == 1
        hasher.open.set()
        assert await asyncio.gather(*checks) == [True] * 5
        assert hasher.most == 2
        assert await passwords.verify(stored, PASSWORD)  # there is room again
    finally:
        hasher.open.set()
        passwords.close()
