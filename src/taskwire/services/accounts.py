"""Accounts: users, teams, API keys, logins, and what a token allows; the one entry to all of it."""

import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import structlog
from argon2 import PasswordHasher

from taskwire.core.errors import InvalidRequest, NotFound, TaskwireError
from taskwire.core.ids import is_id, new_id
from taskwire.core.principals import Principal
from taskwire.services.access import (
    SCOPES,
    AccessControl,
    allows,
    clean_name,
    format_key,
    name_key,
    new_secret,
)
from taskwire.services.jwks import KeySet
from taskwire.services.logins import Login, Logins
from taskwire.services.passwords import Passwords
from taskwire.services.tokens import Tokens, check_provider
from taskwire.settings import Settings
from taskwire.store.accounts import Access, Accounts, ApiKey, Member, Team, User

__all__ = ["Access", "AccountService", "ApiKey", "Login", "Member", "NewKey", "Team", "User", "allows"]

log = structlog.get_logger(__name__)

ADMIN: Final = "admin"
MAX_KEYS: Final = 100
"""Valid API keys of one user."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key just made; ``token`` is not stored and cannot be shown again."""

    key: ApiKey
    token: str = field(repr=False)


class AccountService:
    """Everything about accounts. ``secret`` is the installation's; the key that signs tokens is derived from it.

    Methods that take a ``principal`` check what it may do and raise FORBIDDEN, or NotFound for what it may not even
    know of. ``clock`` gives ms since 1970, ``monotonic`` seconds; ``hasher`` and ``transport`` replace Argon2's
    parameters and the way to the identity provider.
    """

    def __init__(
        self,
        accounts: Accounts,
        settings: Settings,
        secret: str,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        hasher: PasswordHasher | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._accounts = accounts
        self._settings = settings
        self._clock = clock
        self._tokens = _tokens(settings, secret, transport)
        self._passwords = Passwords(
            concurrency=settings.login_concurrency, min_length=settings.password_min_length, hasher=hasher
        )
        self._access = AccessControl(accounts, self._tokens, clock=clock, monotonic=monotonic)
        self._logins = Logins(
            accounts, self._tokens, self._passwords, self._access, settings, clock=clock, monotonic=monotonic
        )
        self.login = self._logins.login
        self.refresh = self._logins.refresh
        self.logout = self._logins.logout
        self.logout_everywhere = self._logins.logout_everywhere
        self.change_password = self._logins.change_password
        self.authenticate = self._access.authenticate
        self.refresh_principal = self._access.refresh_principal

    @property
    def on_access_changed(self) -> list[Callable[[str], None]]:
        """Called with a user's id after a change of what they may do: membership, rights, password, keys, deletion."""
        return self._access.hooks

    async def close(self) -> None:
        await self._access.close()
        await self._tokens.close()
        self._passwords.close()

    async def bootstrap(self) -> str | None:
        """Make the user ``admin`` if there is no user at all.

        The password is TASKWIRE_ADMIN_PASSWORD; without that one is made, and returned for the caller to show once.
        Raises InvalidRequest when the given one may not be chosen.
        """
        if await self._accounts.users(limit=1):
            return None
        given = self._settings.admin_password.get_secret_value()
        password = given or new_password()
        self._passwords.check_rules(password, "TASKWIRE_ADMIN_PASSWORD")
        user = await self._new_user(ADMIN, password, is_admin=True)
        if not await self._accounts.add_first_user(user):
            return None  # another node was first
        log.info("user.created", userId=user.id, username=user.username, isAdmin=True)
        return None if given else password

    async def rights(self, user_ids: Sequence[str]) -> dict[str, Hashable]:
        """What decides about the rights of users, to be compared with what it was; absent: removed or disabled."""
        found = await self._accounts.access(user_ids)
        keys = await self._accounts.valid_keys(user_ids)
        return {
            id: (a.user.token_epoch, a.user.is_admin, frozenset(team.id for team in a.teams), keys.get(id))
            for id, a in found.items()
            if a.user.disabled_at is None
        }

    def changed_elsewhere(self, user_id: str) -> None:
        """Another process has changed the user's rights: what is in memory counts no more."""
        self._access.forget_all()
        self._access.changed(user_id)

    async def purge(self) -> int:
        """Remove refresh tokens past their time; returns how many."""
        return await self._accounts.purge(self._clock())

    async def issue_token(self, user_id: str, *, lifetime: float | None = None) -> tuple[str, int]:
        """An access token for a user without their password (for the command line), and when it expires (ms)."""
        user = (await self._user(user_id)).user
        now = self._clock()
        return self._tokens.issue(
            user.id,
            user.username,
            epoch=user.token_epoch,
            session=new_id("login", now),
            lifetime=lifetime or self._settings.token_lifetime,
            now=now,
        )

    # Users

    async def user(self, user_id: str) -> Access:
        """A user with their teams. Raises NotFound."""
        return await self._user(user_id)

    async def find_user(self, username: str) -> User:
        """Raises NotFound."""
        try:
            user = await self._accounts.user_by_name(name_key(clean_name(username)))
        except InvalidRequest:
            user = None
        if user is None:
            raise NotFound(message="There is no such user.")
        return user

    async def users(self, *, after: str | None = None, limit: int) -> list[User]:
        """In the order of their creation."""
        return await self._accounts.users(after=self._cursor(after), limit=limit)

    async def create_user(self, username: str, password: str, *, is_admin: bool = False) -> User:
        """Raises InvalidRequest for a name or password that may not be chosen, ALREADY_EXISTS for a name in use."""
        name = clean_name(username)
        self._passwords.check_rules(password)
        user = await self._new_user(name, password, is_admin=is_admin)
        await self._accounts.add_user(user)
        log.info("user.created", userId=user.id, username=user.username, isAdmin=is_admin)
        return user

    async def update_user(
        self,
        user_id: str,
        *,
        is_admin: bool | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is given. Disabling a user or setting their password ends their logins.

        Raises NotFound, InvalidRequest, and CONFLICT for a change that would leave no enabled administrator.
        """
        user = (await self._user(user_id)).user
        changes: dict[str, Any] = {}
        if is_admin is not None and is_admin != user.is_admin:
            changes["is_admin"] = is_admin
        if disabled is not None and disabled != (user.disabled_at is not None):
            changes["disabled_at"] = self._clock() if disabled else None
        if password is not None:
            if user.issuer is not None:
                raise InvalidRequest("This user logs in at the identity provider and has no password here.")
            self._passwords.check_rules(password)
            changes["password_hash"] = await self._passwords.hash(password)
        if not changes:
            return user
        revoke = password is not None or bool(disabled)
        user = await self._accounts.change_user(user_id, changes, revoke=revoke)
        log.info("user.changed", userId=user_id, changed=sorted(changes))
        self._access.changed(user_id)
        return user

    async def delete_user(self, user_id: str) -> None:
        """Delete a user with their keys, logins and memberships; their tasks stay. Raises NotFound and CONFLICT."""
        if not is_id(user_id) or not await self._accounts.delete_user(user_id):
            raise NotFound(message="There is no such user.")
        log.info("user.deleted", userId=user_id)
        self._access.changed(user_id)

    # Teams

    async def teams(self, principal: Principal, *, after: str | None = None, limit: int) -> list[Team]:
        """The teams that the principal belongs to; all of them for an administrator."""
        member = None if principal.is_admin else principal.user_id
        return await self._accounts.teams(member=member, after=self._cursor(after), limit=limit)

    async def create_team(self, name: str) -> Team:
        """Raises InvalidRequest and ALREADY_EXISTS."""
        now = self._clock()
        team = Team(new_id("team", now), clean_name(name, "The team's name"), now)
        await self._accounts.add_team(team)
        log.info("team.created", teamId=team.id)
        return team

    async def team(self, team_id: str) -> Team:
        """Raises NotFound."""
        self._check_team_id(team_id)
        team = await self._accounts.team(team_id)
        if team is None:
            raise NotFound
        return team

    async def rename_team(self, team_id: str, name: str) -> Team:
        """Raises NotFound, InvalidRequest and ALREADY_EXISTS."""
        self._check_team_id(team_id)
        team = await self._accounts.rename_team(team_id, clean_name(name, "The team's name"))
        self._access.forget_all()
        return team

    async def delete_team(self, team_id: str) -> None:
        """Delete a team; tasks of the team stay with their owners. Raises NotFound."""
        self._check_team_id(team_id)
        members = await self._accounts.delete_team(team_id)
        if members is None:
            raise NotFound(message="There is no such team.")
        log.info("team.deleted", teamId=team_id, members=len(members))
        for user_id in members:
            self._access.changed(user_id)

    async def members(
        self, principal: Principal, team_id: str, *, after: str | None = None, limit: int
    ) -> list[Member]:
        """The members of a team. Raises NotFound for a team that is not one's own, unless for an administrator."""
        self._check_team_id(team_id)
        cursor = self._cursor(after)
        if not principal.is_admin and team_id not in principal.teams:
            raise NotFound(message="There is no such team.")
        if await self._accounts.team(team_id) is None:
            raise NotFound(message="There is no such team.")
        return await self._accounts.members(team_id, after=cursor, limit=limit)

    async def add_member(self, team_id: str, user_id: str) -> None:
        """No error if they belong to it already. Raises NotFound for an unknown team or user."""
        self._check_team_id(team_id)
        if not is_id(user_id):
            raise NotFound(message="There is no such user.")
        if await self._accounts.add_member(team_id, user_id, self._clock()):
            log.info("team.joined", teamId=team_id, userId=user_id)
            self._access.changed(user_id)

    async def remove_member(self, team_id: str, user_id: str) -> None:
        """Raises NotFound when they do not belong to it."""
        self._check_team_id(team_id)
        if not is_id(user_id) or not await self._accounts.remove_member(team_id, user_id):
            raise NotFound(message="There is no such member.")
        log.info("team.left", teamId=team_id, userId=user_id)
        self._access.changed(user_id)

    # API keys

    async def keys(
        self, principal: Principal, *, user_id: str | None = None, after: str | None = None, limit: int
    ) -> list[ApiKey]:
        """One's own keys, or those of another user for an administrator; revoked ones too."""
        owner = self._on_behalf(principal, user_id)
        return await self._accounts.keys(owner, after=self._cursor(after), limit=limit)

    async def create_key(
        self,
        principal: Principal,
        *,
        name: str,
        scopes: Sequence[str],
        expires_at: int | None = None,
        user_id: str | None = None,
    ) -> NewKey:
        """Make a key for oneself, or for another user as an administrator. ``expires_at`` in ms, None: never.

        Raises InvalidRequest, FORBIDDEN (a key cannot make keys), CONFLICT when there are too many, and NotFound.
        """
        if principal.key_id is not None:
            raise TaskwireError("FORBIDDEN", "An API key cannot make API keys; log in for that.")
        now = self._clock()
        if not scopes or not SCOPES.issuperset(scopes):
            raise InvalidRequest(f"The scopes must be one or more of {', '.join(sorted(SCOPES))}.")
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest("The time at which the key expires must lie in the future.")
        secret, secret_hash = new_secret()
        key = ApiKey(
            id=new_id("key", now),
            user_id=self._on_behalf(principal, user_id),
            name=clean_name(name, "The key's name"),
            hash=secret_hash,
            scopes=frozenset(scopes),
            created_at=now,
            expires_at=expires_at,
        )
        await self._accounts.add_key(key, limit=MAX_KEYS)
        log.info("api_key.created", keyId=key.id, userId=key.user_id)
        return NewKey(key, format_key(key.id, secret))

    async def revoke_key(self, principal: Principal, key_id: str, *, user_id: str | None = None) -> None:
        """Revoke a key of one's own, or anybody's as an administrator. Raises NotFound."""
        key = await self._accounts.key(key_id) if is_id(key_id) else None
        if (
            key is None
            or (key.user_id != principal.user_id and not principal.is_admin)
            or (user_id is not None and user_id != key.user_id)
        ):
            raise NotFound(message="There is no such API key.")
        await self._accounts.revoke_key(key_id, self._clock())
        log.info("api_key.revoked", keyId=key_id, userId=key.user_id)
        self._access.changed(key.user_id, key_id)

    async def _user(self, user_id: str) -> Access:
        access = (await self._accounts.access([user_id])).get(user_id) if is_id(user_id) else None
        if access is None:
            raise NotFound(message="There is no such user.")
        return access

    async def _new_user(self, name: str, password: str, *, is_admin: bool) -> User:
        now = self._clock()
        password_hash = await self._passwords.hash(password)
        return User(
            new_id("user", now), name, name_key(name), now, is_admin=is_admin, password_hash=password_hash
        )

    @staticmethod
    def _cursor(after: str | None) -> str:
        """The id behind which a page begins."""
        if after is not None and not is_id(after):
            raise InvalidRequest("`cursor`: wanted the `nextCursor` of an earlier page")
        return after or ""

    @staticmethod
    def _check_team_id(team_id: str) -> None:
        if not is_id(team_id):
            raise NotFound(message="There is no such team.")

    @staticmethod
    def _on_behalf(principal: Principal, user_id: str | None) -> str:
        if user_id is None or user_id == principal.user_id:
            return principal.user_id
        if not principal.is_admin:
            raise TaskwireError("FORBIDDEN", "Only administrators may manage the API keys of others.")
        if not is_id(user_id):
            raise NotFound(message="There is no such user.")
        return user_id


def new_password() -> str:
    """A password to be typed by hand once: 20 characters, 99 random bits."""
    return "-".join(
        "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(5)) for _ in range(4)
    )


def _tokens(settings: Settings, secret: str, transport: httpx.AsyncBaseTransport | None) -> Tokens:
    if not settings.jwks_url:
        return Tokens(secret)
    # Checked before the key set is made, which knows the checked algorithms only.
    check_provider(settings.jwt_issuer, settings.jwt_audience, settings.jwt_algorithms)
    keys = KeySet(
        settings.jwks_url,
        algorithms=settings.jwt_algorithms,
        keep=settings.jwks_cache,
        transport=transport,
    )
    return Tokens(
        secret,
        keys=keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=settings.jwt_algorithms,
    )
