"""Logging in and staying logged in: passwords, access tokens, and refresh tokens that are used once each."""

import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.ids import new_id
from taskwire.core.principals import Principal
from taskwire.services.access import AccessControl, clean_name, hash_secret, name_key, new_secret
from taskwire.services.passwords import Passwords
from taskwire.services.throttle import Throttle
from taskwire.services.tokens import Tokens
from taskwire.settings import Settings
from taskwire.store.accounts import Access, Accounts, RefreshToken, User

log = structlog.get_logger(__name__)

_REFRESH: Final = re.compile(r"tw_refresh_([0-9a-z]{26})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Login:
    """A login: its tokens, when they expire (ms), and who logged in."""

    token: str = field(repr=False)
    expires_at: int
    refresh_token: str = field(repr=False)
    refresh_expires_at: int
    access: Access


class Logins:
    """Logs users in by password, and keeps them logged in."""

    def __init__(
        self,
        accounts: Accounts,
        tokens: Tokens,
        passwords: Passwords,
        access: AccessControl,
        settings: Settings,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._passwords = passwords
        self._access = access
        self._lifetime = settings.token_lifetime
        self._refresh_ms = int(settings.refresh_lifetime * 1000)
        self._clock = clock
        self._monotonic = monotonic
        self._throttle = Throttle(settings.login_attempts, settings.login_window)

    async def login(self, username: str, password: str, address: str | None) -> Login:
        """Raises INVALID_CREDENTIALS, the same way for whatever reason, and RATE_LIMITED after too many failures.

        ``address`` is the client's IP address, None where there is none.
        """
        name = _key(username)
        counted = _counted(name or "", address)
        self._refuse_floods(counted)  # before the database is asked
        user = await self._accounts.user_by_name(name) if name else None
        await self._check(user, password, counted)
        assert user is not None  # no password is right without one
        return await self._open(user)

    async def refresh(self, refresh_token: str) -> Login:
        """New tokens for a refresh token, which is used up by it. Raises UNAUTHORIZED.

        A token that comes a second time was copied: then nobody can tell the thief from the owner, and the whole login
        is ended.
        """
        refused = TaskwireError("UNAUTHORIZED", "The refresh token is not valid any more; log in again.")
        match = _REFRESH.fullmatch(refresh_token)
        if match is None:
            raise refused
        now = self._clock()
        next_id, (secret, secret_hash) = new_id("refresh", now), new_secret()
        outcome, token = await self._accounts.use_refresh_token(
            "refresh_" + match[1],
            hash_secret(match[2]),
            now,
            next_id=next_id,
            next_hash=secret_hash,
            expires_at=now + self._refresh_ms,
        )
        if token is None:
            raise refused
        if outcome == "reused":
            log.warning("login.refresh_token_reused", userId=token.user_id)
            raise refused
        access = (await self._accounts.access([token.user_id])).get(token.user_id)
        if access is None or access.user.disabled_at is not None or access.user.token_epoch != token.epoch:
            await self._accounts.revoke_family(token.family)
            raise refused
        return self._login(access, token, secret)

    async def logout(self, *, refresh_token: str | None = None, access_token: str | None = None) -> None:
        """End the login that the tokens belong to: its refresh token works no more. Unknown tokens are no error.

        Access tokens are not looked up anywhere and so run on until they expire; ``logout_everywhere`` ends them too.
        """
        match = _REFRESH.fullmatch(refresh_token or "")
        if match is not None:
            token = await self._accounts.refresh_token("refresh_" + match[1])
            if token is not None and token.hash == hash_secret(match[2]):
                await self._accounts.revoke_family(token.family)
        session = self._tokens.session_of(access_token) if access_token else None
        if session is not None:
            await self._accounts.revoke_family(session)

    async def logout_everywhere(self, user_id: str) -> None:
        """End every login of a user at once, access tokens included. API keys go on working."""
        await self._accounts.change_user(user_id, {}, revoke=True)
        self._access.changed(user_id)

    async def change_password(
        self, principal: Principal, current: str, new: str, address: str | None
    ) -> Login:
        """Set one's own password. Ends every login of the user; the new one returned is the only one left.

        Raises INVALID_CREDENTIALS when ``current`` is wrong, InvalidRequest when ``new`` may not be chosen,
        RATE_LIMITED after too many failures, FORBIDDEN for an API key or a user of the identity provider.
        """
        if principal.key_id is not None:
            raise TaskwireError("FORBIDDEN", "An API key cannot change the password; log in for that.")
        user = (await self._access.active(principal.user_id)).user
        if user.password_hash is None:
            raise TaskwireError("FORBIDDEN", "This user has no password here.")
        self._passwords.check_rules(new, "The new password")
        user = await self._accounts.user(user.id) or user
        await self._check(user, current, _counted(user.username_key, address))
        if new == current:
            raise InvalidRequest("The new password must differ from the present one.")
        changes = {"password_hash": await self._passwords.hash(new)}
        user = await self._accounts.change_user(user.id, changes, revoke=True)
        self._access.changed(user.id)
        return await self._open(user)

    def _refuse_floods(self, counted: Sequence[str]) -> None:
        wait = max(self._throttle.retry_after(key, self._monotonic()) for key in counted)
        if wait:
            raise TaskwireError("RATE_LIMITED", "Too many failed logins; try again later.", retry_after=wait)

    async def _check(self, user: User | None, password: str, counted: Sequence[str]) -> None:
        """Raises unless the password is right and may be tried. Takes the same time with and without a user."""
        self._refuse_floods(counted)
        for key in counted:
            self._throttle.hit(key, self._monotonic())
        known = user.password_hash if user is not None and user.disabled_at is None else None
        try:
            right = await self._passwords.verify(known, password)
        except TaskwireError:
            for key in counted:
                self._throttle.forgive(key)  # it was not tried
            raise
        if not right or user is None or known is None:
            log.info("login.failed", userId=user.id if user is not None else None)
            raise TaskwireError("INVALID_CREDENTIALS")
        self._throttle.reset(counted[0])
        for key in counted[1:]:
            self._throttle.forgive(
                key
            )  # not all: else one account of one's own would open the way to guess others'
        if self._passwords.needs_rehash(known):
            await self._accounts.replace_hash(user.id, known, await self._passwords.hash(password))

    async def _open(self, user: User) -> Login:
        """A new login, on the strength of ``user`` as it was when the password was checked."""
        now = self._clock()
        token_id, (secret, secret_hash) = new_id("refresh", now), new_secret()
        token = RefreshToken(
            id=token_id,
            user_id=user.id,
            family=new_id("login", now),
            hash=secret_hash,
            epoch=user.token_epoch,
            created_at=now,
            expires_at=now + self._refresh_ms,
        )
        await self._accounts.add_refresh_token(token)
        access = (await self._accounts.access([user.id])).get(user.id)
        if access is None:
            raise TaskwireError("INVALID_CREDENTIALS")
        return self._login(Access(user, access.teams), token, secret)

    def _login(self, access: Access, token: RefreshToken, secret: str) -> Login:
        user = access.user
        jwt, expires_at = self._tokens.issue(
            user.id,
            user.username,
            epoch=token.epoch,
            session=token.family,
            lifetime=self._lifetime,
            now=self._clock(),
        )
        refresh_token = f"tw_refresh_{token.id.removeprefix('refresh_')}_{secret}"
        return Login(jwt, expires_at, refresh_token, token.expires_at, access)


def _key(username: str) -> str | None:
    """What to look a user up by; None for what cannot be anybody's name."""
    try:
        return name_key(clean_name(username))
    except InvalidRequest:
        return None


def _counted(name: str, address: str | None) -> list[str]:
    """What a failed login counts against: the user name first, then the address, where there is one."""
    return [f"name {name}", *([f"address {_network(address)}"] if address else [])]


def _network(address: str) -> str:
    """What failures are counted by: an IPv4 address, or the /64 network that one IPv6 customer has to choose from."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
