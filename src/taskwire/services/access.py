"""Who a token belongs to, and what they may do now: asked by every request, and by thousands of clients at once."""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.ids import new_id
from taskwire.core.principals import Principal
from taskwire.services.cache import CachedLoader
from taskwire.services.tokens import OutsideClaims, Tokens
from taskwire.store.accounts import Access, Accounts, ApiKey, User

log = structlog.get_logger(__name__)

SCOPES: Final = frozenset({"read", "write", "report"})
"""What an API key may be allowed: to read, to change things, only to report progress. ``write`` includes ``report``."""
LOGIN_SCOPES: Final = frozenset({"read", "write"})
MAX_NAME: Final = 128

_KEY: Final = re.compile(r"tw_([0-9a-z]{26})_([0-9a-f]{64})")
_TOUCH_EVERY: Final = 60_000  # ms between two notes that a key was used


@dataclass(frozen=True, slots=True)
class Caller(Principal):
    """A principal that knows the ``token_epoch`` of its login, so that a revoked one is told when asked again."""

    epoch: int | None = None


def allows(principal: Principal, scope: str) -> bool:
    """Whether the token covers ``scope``."""
    return scope in principal.scopes or (scope == "report" and "write" in principal.scopes)


def clean_name(name: str, what: str = "The user name") -> str:
    """A name in the form in which it is stored. Raises InvalidRequest, beginning with ``what``."""
    text = unicodedata.normalize("NFKC", name).strip()
    if not text or len(text) > MAX_NAME:
        raise InvalidRequest(f"{what} must have 1 to {MAX_NAME} characters.")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for character in text):
        raise InvalidRequest(f"{what} must not contain control characters.")
    return text


def name_key(name: str) -> str:
    """What makes two user names the same one."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def new_secret() -> tuple[str, str]:
    """256 random bits in hex, and what is stored of them."""
    secret = secrets.token_hex(32)
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def format_key(key_id: str, secret: str) -> str:
    """The whole API key, as it is shown once."""
    return f"tw_{key_id.removeprefix('key_')}_{secret}"


class AccessControl:
    """Turns tokens into principals.

    Rows are kept in memory for ``keep`` seconds: on this node a change made through ``changed`` holds at once, on
    another one after that time.
    """

    def __init__(
        self,
        accounts: Accounts,
        tokens: Tokens,
        *,
        clock: Callable[[], int],
        keep: float = 3.0,
        size: int = 20_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._clock = clock
        self._users = CachedLoader[Access](accounts.access, keep=keep, size=size, clock=monotonic)
        self._keys = CachedLoader[ApiKey](accounts.keys_by_id, keep=keep, size=size, clock=monotonic)
        self._subjects = CachedLoader[str](
            partial(accounts.subjects, tokens.issuer), keep=keep, size=size, clock=monotonic
        )
        self._used: set[str] = set()  # ids of keys whose use is not yet written down
        self._touching: asyncio.Task[None] | None = None
        self.hooks: list[Callable[[str], None]] = []
        """Called with a user's id when what they may do has changed."""

    async def authenticate(self, token: str) -> Principal:
        """Raises UNAUTHORIZED, TOKEN_EXPIRED, or Unavailable when that cannot be found out now."""
        now = self._clock()
        if token.startswith("tw_"):
            return await self._by_key(token, now)
        claims = await self._tokens.verify(token, now)
        if isinstance(claims, OutsideClaims):
            access = await self._by_subject(claims, now)
            return _principal(access, expires_at=claims.expires_at)
        access = await self.active(claims.user_id)
        if access.user.token_epoch != claims.epoch:
            raise TaskwireError("UNAUTHORIZED", "The login was ended; log in again.")
        return _principal(access, expires_at=claims.expires_at, epoch=claims.epoch)

    async def refresh_principal(self, principal: Principal) -> Principal:
        """The same login with what it may do now. Raises as ``authenticate`` when it is not valid any more."""
        if principal.expires_at is not None and self._clock() >= principal.expires_at:
            raise TaskwireError("TOKEN_EXPIRED")
        scopes = principal.scopes
        if principal.key_id is not None:
            key = await self._keys.get(principal.key_id)
            if key is None or key.revoked_at is not None:
                raise TaskwireError("UNAUTHORIZED", "The API key was revoked.")
            scopes = key.scopes
        access = await self.active(principal.user_id)
        epoch = principal.epoch if isinstance(principal, Caller) else None
        if epoch is not None and access.user.token_epoch != epoch:
            raise TaskwireError("UNAUTHORIZED", "The login was ended; log in again.")
        return _principal(
            access, expires_at=principal.expires_at, key_id=principal.key_id, scopes=scopes, epoch=epoch
        )

    async def active(self, user_id: str) -> Access:
        """A user and their teams. Raises UNAUTHORIZED when they are unknown or disabled."""
        return _enabled(await self._users.get(user_id))

    def changed(self, user_id: str, key_id: str | None = None) -> None:
        """A user's row, memberships or key have changed: what was read before counts no more."""
        self._users.forget(user_id)
        if key_id is not None:
            self._keys.forget(key_id)
        for hook in self.hooks:
            hook(user_id)

    def forget_all(self) -> None:
        """Read every row anew, without telling anybody (a team's name has changed, or another process was here)."""
        self._users.clear()
        self._keys.clear()

    async def close(self) -> None:
        if self._touching is not None:
            await self._touching

    # API keys

    async def _by_key(self, token: str, now: int) -> Principal:
        match = _KEY.fullmatch(token)
        key = await self._keys.get("key_" + match[1]) if match else None
        if match is None or key is None or not hmac.compare_digest(key.hash, hash_secret(match[2])):
            raise TaskwireError("UNAUTHORIZED")
        if key.revoked_at is not None:
            raise TaskwireError("UNAUTHORIZED", "The API key was revoked.")
        if key.expires_at is not None and now >= key.expires_at:
            raise TaskwireError("TOKEN_EXPIRED", "The API key has expired.")
        access = await self.active(key.user_id)
        self._touch(key, now)
        return _principal(access, expires_at=key.expires_at, key_id=key.id, scopes=key.scopes)

    def _touch(self, key: ApiKey, now: int) -> None:
        """Note that the key was used: later, together with others, so that nobody waits for it."""
        if key.id in self._used or now - (key.last_used_at or 0) < _TOUCH_EVERY:
            return
        self._used.add(key.id)
        if self._touching is None:
            self._touching = asyncio.create_task(self._write_used(), name="api-keys-used")

    async def _write_used(self) -> None:
        try:
            while self._used:
                ids = sorted(self._used)[:500]
                await self._accounts.touch_keys(ids, self._clock())
                self._used.difference_update(ids)
                for key_id in ids:
                    self._keys.forget(key_id)
        except TaskwireError as error:
            log.warning("api_keys.touch_failed", reason=error.message)
            self._used.clear()
        finally:
            self._touching = None

    # The identity provider's users

    async def _by_subject(self, claims: OutsideClaims, now: int) -> Access:
        for _ in range(3):
            user_id = await self._subjects.get(claims.subject)
            if user_id is None:
                user_id = await self._provision(claims, now)
            access = await self._users.get(user_id)
            if access is not None:
                return _enabled(access)
            self._subjects.forget(claims.subject)  # deleted a moment ago
        raise TaskwireError("UNAUTHORIZED")

    async def _provision(self, claims: OutsideClaims, now: int) -> str:
        """Make a user of somebody seen for the first time; returns their id.

        Names only look alike: a name that is taken gets a number, it never leads to the user who has it.
        """
        for name in _candidates(claims.names):
            user = User(
                id=new_id("user", now),
                username=name,
                username_key=name_key(name),
                created_at=now,
                issuer=claims.issuer,
                subject=claims.subject,
            )
            try:
                await self._accounts.add_user(user)
            except TaskwireError as error:
                if error.code != "ALREADY_EXISTS":
                    raise
                known = await self._accounts.subjects(claims.issuer, [claims.subject])
                if known:
                    return known[claims.subject]  # another request, or another node, was first
                continue
            log.info("user.provisioned", userId=user.id, username=name)
            return user.id
        raise TaskwireError("UNAVAILABLE", "No free user name was found.")


def _principal(
    access: Access,
    *,
    expires_at: int | None,
    key_id: str | None = None,
    scopes: frozenset[str] = LOGIN_SCOPES,
    epoch: int | None = None,
) -> Caller:
    user = access.user
    teams = frozenset(team.id for team in access.teams)
    return Caller(user.id, user.username, user.is_admin, teams, expires_at, key_id, scopes, epoch)


def _enabled(access: Access | None) -> Access:
    if access is None or access.user.disabled_at is not None:
        raise TaskwireError("UNAUTHORIZED", "The user does not exist any more, or is disabled.")
    return access


def _candidates(names: Iterable[str]) -> Iterator[str]:
    """The first usable name, then the same with a number, then with random digits."""
    base = "user"
    for name in names:
        try:
            base = clean_name(name)
        except InvalidRequest:
            continue
        break
    yield base
    base = base[: MAX_NAME - 10]
    yield from (f"{base}-{number}" for number in range(2, 10))
    yield from (f"{base}-{secrets.token_hex(4)}" for _ in range(3))
