"""Rows of people and what lets them in: users, teams and members, API keys, refresh tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Select, Table, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from taskwire.core.errors import NotFound, TaskwireError
from taskwire.store.database import Database
from taskwire.store.schema import api_keys, refresh_tokens, team_members, teams, users

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class User:
    """A person. ``issuer`` and ``subject`` name them at the identity provider; those have no password here."""

    id: str
    username: str
    username_key: str
    created_at: int
    is_admin: bool = False
    token_epoch: int = 0
    password_hash: str | None = field(default=None, repr=False)
    disabled_at: int | None = None
    issuer: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Team:
    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a team; ``created_at`` is when they joined."""

    user_id: str
    username: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Access:
    """What decides about a user's requests: the user and the teams they belong to, by name."""

    user: User
    teams: tuple[Team, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A producer's key. ``hash`` is SHA-256 of the secret part, in hex."""

    id: str
    user_id: str
    name: str
    hash: str = field(repr=False)
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", frozenset(self.scopes))  # a list in the database


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Good for one new access token. All that descend from one login share its ``family``."""

    id: str
    user_id: str
    family: str
    hash: str = field(repr=False)
    epoch: int
    created_at: int
    expires_at: int
    used_at: int | None = None


class Accounts:
    """The rows in one database. Every method is one transaction; a database that is away raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Users

    async def add_user(self, user: User) -> None:
        """Raises ALREADY_EXISTS when the name, or the person at the identity provider, is known."""
        await self._insert(users, user, "A user of this name exists already.")

    async def add_first_user(self, user: User) -> bool:
        """Add ``user`` if there is none at all; False when there is one, also one added at the same moment."""
        try:
            async with self._database.change() as connection:
                if await connection.scalar(select(users.c.id).limit(1)):
                    return False
                await connection.execute(insert(users).values(_values(user)))
        except IntegrityError:
            return False
        return True

    async def user(self, user_id: str) -> User | None:
        return await self._one(User, select(users).where(users.c.id == user_id))

    async def user_by_name(self, username_key: str) -> User | None:
        return await self._one(User, select(users).where(users.c.username_key == username_key))

    async def users(self, *, after: str = "", limit: int) -> list[User]:
        """In the order of their ids, which is that of their creation, from behind the id ``after``."""
        return await self._all(
            User, select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
        )

    async def subjects(self, issuer: str, subjects: Sequence[str]) -> dict[str, str]:
        """The ids of those of the identity provider's ``subjects`` that are known here, by subject."""
        query = select(users.c.subject, users.c.id).where(
            users.c.issuer == issuer, users.c.subject.in_(subjects)
        )
        async with self._database.read() as connection:
            return {row.subject: row.id for row in await connection.execute(query)}

    async def access(self, user_ids: Sequence[str]) -> dict[str, Access]:
        """Users and their teams, for many at once, by user id; unknown ids are left out."""
        memberships = users.outerjoin(team_members, team_members.c.user_id == users.c.id)
        query = (
            select(users, *(column.label(f"team_{column.name}") for column in teams.c))
            .select_from(memberships.outerjoin(teams, teams.c.id == team_members.c.team_id))
            .where(users.c.id.in_(user_ids))
            .order_by(teams.c.name)
        )
        found: dict[str, Access] = {}
        async with self._database.read() as connection:
            for row in (await connection.execute(query)).mappings():
                known = found.get(row["id"]) or Access(
                    User(**{column.name: row[column.name] for column in users.c})
                )
                if row["team_id"] is not None:
                    team = Team(row["team_id"], row["team_name"], row["team_created_at"])
                    known = Access(known.user, (*known.teams, team))
                found[known.user.id] = known
        return found

    async def change_user(self, user_id: str, changes: Mapping[str, Any], *, revoke: bool = False) -> User:
        """Set columns of a user and return the new row; ``revoke`` makes every token of theirs invalid.

        Raises NotFound, and CONFLICT for a change that would leave no enabled administrator.
        """
        values = dict(changes)
        risky = not values.keys().isdisjoint(("is_admin", "disabled_at"))
        async with self._database.change() as connection:
            if risky:
                await _lock_admins(connection)
            if revoke:
                values["token_epoch"] = users.c.token_epoch + 1
                await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.user_id == user_id))
            query = update(users).where(users.c.id == user_id).values(values).returning(users)
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                raise NotFound(message="There is no such user.")
            if risky:
                await _require_admin(connection)
            return User(**row)

    async def replace_hash(self, user_id: str, old: str, new: str) -> None:
        """Store the same password under other parameters, unless it has been changed in between."""
        async with self._database.change() as connection:
            await connection.execute(
                update(users)
                .where(users.c.id == user_id, users.c.password_hash == old)
                .values(password_hash=new)
            )

    async def delete_user(self, user_id: str) -> bool:
        """Delete a user with memberships, keys and tokens. Raises CONFLICT for the last enabled administrator."""
        async with self._database.change() as connection:
            await _lock_admins(connection)
            found = (await connection.execute(delete(users).where(users.c.id == user_id))).rowcount > 0
            if found:
                await _require_admin(connection)
            return found

    # Teams

    async def add_team(self, team: Team) -> None:
        """Raises ALREADY_EXISTS."""
        await self._insert(teams, team, "A team of this name exists already.")

    async def rename_team(self, team_id: str, name: str) -> Team:
        """Raises NotFound and ALREADY_EXISTS."""
        query = update(teams).where(teams.c.id == team_id).values(name=name).returning(teams)
        try:
            async with self._database.change() as connection:
                row = (await connection.execute(query)).mappings().one_or_none()
        except IntegrityError as error:
            raise TaskwireError("ALREADY_EXISTS", "A team of this name exists already.") from error
        if row is None:
            raise NotFound(message="There is no such team.")
        return Team(**row)

    async def delete_team(self, team_id: str) -> list[str] | None:
        """Delete a team; returns the ids of those who were members, None when there was no such team."""
        async with self._database.change() as connection:
            members = select(team_members.c.user_id).where(team_members.c.team_id == team_id)
            # Behind this lock nobody can join, so that no member is missed.
            await connection.execute(select(teams.c.id).where(teams.c.id == team_id).with_for_update())
            ids = list(await connection.scalars(members))
            found = (await connection.execute(delete(teams).where(teams.c.id == team_id))).rowcount > 0
            return ids if found else None

    async def team(self, team_id: str) -> Team | None:
        return await self._one(Team, select(teams).where(teams.c.id == team_id))

    async def teams(self, *, member: str | None = None, after: str = "", limit: int) -> list[Team]:
        """All teams, or those of one member, in the order of their ids."""
        query = select(teams).where(teams.c.id > after).order_by(teams.c.id).limit(limit)
        if member is not None:
            query = query.join(team_members, team_members.c.team_id == teams.c.id)
            query = query.where(team_members.c.user_id == member)
        return await self._all(Team, query)

    async def members(self, team_id: str, *, after: str = "", limit: int) -> list[Member]:
        """In the order of the users' ids."""
        query = (
            select(team_members.c.user_id, users.c.username, team_members.c.created_at)
            .join(users, users.c.id == team_members.c.user_id)
            .where(team_members.c.team_id == team_id, team_members.c.user_id > after)
            .order_by(team_members.c.user_id)
            .limit(limit)
        )
        return await self._all(Member, query)

    async def add_member(self, team_id: str, user_id: str, now: int) -> bool:
        """False when the user is a member already. Raises NotFound for an unknown team or user."""
        try:
            async with self._database.change() as connection:
                known = select(team_members.c.user_id).where(
                    team_members.c.team_id == team_id, team_members.c.user_id == user_id
                )
                if await connection.scalar(known):
                    return False
                for table, key, what in ((teams, team_id, "team"), (users, user_id, "user")):
                    if not await connection.scalar(select(table.c.id).where(table.c.id == key)):
                        raise NotFound(message=f"There is no such {what}.")
                await connection.execute(
                    insert(team_members).values(team_id=team_id, user_id=user_id, created_at=now)
                )
        except IntegrityError:
            # Somebody else added the same member, or deleted the user or the team, a moment ago: the second look tells.
            return await self.add_member(team_id, user_id, now)
        return True

    async def remove_member(self, team_id: str, user_id: str) -> bool:
        """False when the user was not a member."""
        query = delete(team_members).where(
            team_members.c.team_id == team_id, team_members.c.user_id == user_id
        )
        async with self._database.change() as connection:
            return (await connection.execute(query)).rowcount > 0

    # API keys

    async def add_key(self, key: ApiKey, *, limit: int) -> None:
        """Raises CONFLICT when the user has ``limit`` valid keys already, NotFound for an unknown user."""
        valid = select(func.count()).where(
            api_keys.c.user_id == key.user_id,
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > key.created_at),
        )
        async with self._database.change() as connection:
            # Locking the user makes the count hold until the key is in.
            owner = select(users.c.id).where(users.c.id == key.user_id).with_for_update()
            if not await connection.scalar(owner):
                raise NotFound(message="There is no such user.")
            if (await connection.scalar(valid) or 0) >= limit:
                raise TaskwireError(
                    "CONFLICT", f"There are {limit} valid API keys already; revoke one first."
                )
            await connection.execute(insert(api_keys).values(_values(key)))

    async def key(self, key_id: str) -> ApiKey | None:
        return (await self.keys_by_id([key_id])).get(key_id)

    async def keys_by_id(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        """Keys for many ids at once, by id; unknown ids are left out."""
        return {
            key.id: key for key in await self._all(ApiKey, select(api_keys).where(api_keys.c.id.in_(key_ids)))
        }

    async def keys(self, user_id: str, *, after: str = "", limit: int) -> list[ApiKey]:
        """The keys of a user in the order of their ids, revoked ones as well."""
        query = select(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.id > after)
        return await self._all(ApiKey, query.order_by(api_keys.c.id).limit(limit))

    async def valid_keys(self, user_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        """The ids of the keys of users that are not revoked, by user id; users without any are left out."""
        query = select(api_keys.c.user_id, api_keys.c.id).where(
            api_keys.c.user_id.in_(user_ids), api_keys.c.revoked_at.is_(None)
        )
        found: dict[str, set[str]] = {}
        async with self._database.read() as connection:
            for user_id, key_id in await connection.execute(query):
                found.setdefault(user_id, set()).add(key_id)
        return {user_id: frozenset(ids) for user_id, ids in found.items()}

    async def revoke_key(self, key_id: str, now: int) -> None:
        """Has no effect on a key that is revoked already, or unknown."""
        query = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        async with self._database.change() as connection:
            await connection.execute(query.values(revoked_at=now))

    async def touch_keys(self, key_ids: Sequence[str], now: int) -> None:
        """Note that keys were used."""
        async with self._database.change() as connection:
            await connection.execute(
                update(api_keys).where(api_keys.c.id.in_(key_ids)).values(last_used_at=now)
            )

    # Refresh tokens

    async def add_refresh_token(self, token: RefreshToken) -> None:
        """Raises NotFound when the user has been deleted in between."""
        try:
            async with self._database.change() as connection:
                await connection.execute(insert(refresh_tokens).values(_values(token)))
        except IntegrityError as error:
            raise NotFound(message="There is no such user.") from error

    async def use_refresh_token(
        self, token_id: str, token_hash: str, now: int, *, next_id: str, next_hash: str, expires_at: int
    ) -> tuple[Literal["rotated", "reused", "unknown"], RefreshToken | None]:
        """Use a token up, and put its successor in its place, in one step.

        ``reused``: it was used before; the whole family has been revoked. ``unknown``: no such token, another secret,
        or expired. Returns the successor, or the token that was used again.
        """
        this = and_(refresh_tokens.c.id == token_id, refresh_tokens.c.hash == token_hash)
        usable = and_(this, refresh_tokens.c.used_at.is_(None), refresh_tokens.c.expires_at > now)
        async with self._database.change() as connection:
            query = update(refresh_tokens).where(usable).values(used_at=now).returning(refresh_tokens)
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is not None:
                token = RefreshToken(
                    next_id, row["user_id"], row["family"], next_hash, row["epoch"], now, expires_at
                )
                await connection.execute(insert(refresh_tokens).values(_values(token)))
                return "rotated", token
            row = (await connection.execute(select(refresh_tokens).where(this))).mappings().one_or_none()
            if row is None or row["used_at"] is None:
                return "unknown", None
            await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.family == row["family"]))
            return "reused", RefreshToken(**row)

    async def refresh_token(self, token_id: str) -> RefreshToken | None:
        return await self._one(RefreshToken, select(refresh_tokens).where(refresh_tokens.c.id == token_id))

    async def revoke_family(self, family: str) -> None:
        """End one login: none of its refresh tokens works any more."""
        async with self._database.change() as connection:
            await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.family == family))

    async def purge(self, now: int) -> int:
        """Remove refresh tokens that have expired; returns how many."""
        query = delete(refresh_tokens).where(refresh_tokens.c.expires_at <= now)
        async with self._database.change() as connection:
            return (await connection.execute(query)).rowcount

    async def _insert(self, table: Table, row: "DataclassInstance", taken: str) -> None:
        try:
            async with self._database.change() as connection:
                await connection.execute(insert(table).values(_values(row)))
        except IntegrityError as error:
            raise TaskwireError("ALREADY_EXISTS", taken) from error

    async def _one(self, kind: type[Row], query: Select[Any]) -> Row | None:
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else kind(**row)

    async def _all(self, kind: type[Row], query: Select[Any]) -> list[Row]:
        async with self._database.read() as connection:
            return [kind(**row) for row in (await connection.execute(query)).mappings()]


def _values(row: "DataclassInstance") -> dict[str, Any]:
    values = {column.name: getattr(row, column.name) for column in fields(row)}
    if isinstance(row, ApiKey):
        values["scopes"] = sorted(row.scopes)
    return values


async def _lock_admins(connection: AsyncConnection) -> None:
    """Let two who would each remove the other's rights come one after the other (SQLite has one writer anyway)."""
    await connection.execute(
        select(users.c.id).where(users.c.is_admin).order_by(users.c.id).with_for_update()
    )


async def _require_admin(connection: AsyncConnection) -> None:
    enabled = select(users.c.id).where(users.c.is_admin, users.c.disabled_at.is_(None)).limit(1)
    if not await connection.scalar(enabled):
        raise TaskwireError("CONFLICT", "This is the last enabled administrator; make another one first.")
