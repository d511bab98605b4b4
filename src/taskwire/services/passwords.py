"""Password hashes: Argon2id, computed in threads, few side by side."""

import asyncio
import base64
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from taskwire.core.errors import InvalidRequest, TaskwireError

MAX_LENGTH: Final = 1024
"""Longest password taken, in characters: hashing takes time by the byte."""

T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords with the parameters of ``hasher`` (default: RFC 9106, second choice, 64 MiB).

    At most ``concurrency`` hashes are computed at a time, and at most ``max_waiting`` wait for their turn; further
    ones are refused with RATE_LIMITED.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        min_length: int,
        max_waiting: int = 1000,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._hasher = hasher or PasswordHasher()
        self._min_length = min_length
        self._room = concurrency + max_waiting
        # Threads of our own: the loop's default ones serve others too, who should not wait for logins.
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="password")
        self._decoy = _decoy(self._hasher)

    def check_rules(self, password: str, what: str = "The password") -> None:
        """Raises InvalidRequest, beginning with ``what``, unless ``password`` may be chosen."""
        if not self._min_length <= len(password) <= MAX_LENGTH:
            raise InvalidRequest(f"{what} must have {self._min_length} to {MAX_LENGTH} characters.")
        if _bytes(password) is None:
            raise InvalidRequest(f"{what} must be valid Unicode text.")

    async def hash(self, password: str) -> str:
        """The hash to store, in PHC string format."""
        return await self._run(partial(self._hasher.hash, _bytes(password) or b""))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right. Without a hash (unknown user) the answer is no, after the same work."""
        data = _bytes(password[:MAX_LENGTH])
        right = await self._run(partial(self._verify, password_hash or self._decoy, data or b""))
        return right and password_hash is not None and data is not None and len(password) <= MAX_LENGTH

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than those used now."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Take no further work; what runs now ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room:
            raise TaskwireError("RATE_LIMITED", "Too many logins at once; try again shortly.", retry_after=1)
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._room += 1


def _bytes(password: str) -> bytes | None:
    """What is hashed: keyboards differ in how they compose letters, so that the form is made one. None: not text."""
    try:
        return unicodedata.normalize("NFKC", password).encode()
    except UnicodeEncodeError:
        return None


def _decoy(hasher: PasswordHasher) -> str:
    """A hash of no password at all, which costs as much to check as a real one."""
    salt, digest = (
        base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (hasher.salt_len, hasher.hash_len)
    )
    parameters = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2{hasher.type.name.lower()}$v=19${parameters}${salt}${digest}"
