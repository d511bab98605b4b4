"""Tokens into principals: who, what now, for thousands at once, and never on the strength of what was."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from taskwire.core.errors import InvalidRequest, TaskwireError, Unavailable
from taskwire.core.principals import Principal
from taskwire.services.access import MAX_NAME, Caller, allows, clean_name, name_key
from taskwire.services.accounts import AccountService
from taskwire.store.accounts import Access, Accounts, ApiKey, Team, User
from taskwire.store.database import Database
from tests.services.test_jwks import Provider, jwk
from tests.support.accounts import PASSWORD, Clock, make_service, open_database
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

ISSUER = "https://id.example"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Counted(Accounts):
    """Counts what is asked of the database, and can be slow or away."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked: list[str] = []
        self.hold: asyncio.Event | None = None
        self.away = False

    async def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise Unavailable

    async def access(self, user_ids: Sequence[str]) -> dict[str, Access]:
        await self._note("access")
        found = await super().access(user_ids)
        if self.hold is not None:
            await self.hold.wait()
        return found

    async def keys_by_id(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        await self._note("keys")
        return await super().keys_by_id(key_ids)

    async def subjects(self, issuer: str, subjects: Sequence[str]) -> dict[str, str]:
        await self._note("subjects")
        return await super().subjects(issuer, subjects)

    async def touch_keys(self, key_ids: Sequence[str], now: int) -> None:
        await self._note("touch")
        await super().touch_keys(key_ids, now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Counted]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'taskwire.db'}") as database:
        yield Counted(database)


@pytest.fixture
async def service(accounts: Counted, clock: Clock) -> AsyncIterator[AccountService]:
    made = make_service(
        accounts,
        clock,
        transport=Provider(jwk(RSA, "r")),
        jwks_url=f"{ISSUER}/jwks",
        jwt_issuer=ISSUER,
        jwt_audience="taskwire-web",
    )
    yield made
    await made.close()


@pytest.fixture
async def admin(service: AccountService) -> User:
    return await service.create_user("root", PASSWORD, is_admin=True)


@pytest.fixture
async def ada(service: AccountService, admin: User) -> User:
    return await service.create_user("Ada", PASSWORD)


def outside(clock: Clock, subject: str, **claims: Any) -> str:
    now = clock() // 1000
    claims = {"iss": ISSUER, "aud": "taskwire-web", "sub": subject, "exp": now + 60, **claims}
    return jwt.encode(claims, RSA, "RS256", headers={"kid": "r"})


async def passes(service: AccountService, token: str) -> bool:
    return (await service.authenticate(token)).user_id.startswith("user_")


async def refused(service: AccountService, token: str) -> str:
    with pytest.raises(TaskwireError) as caught:
        await service.authenticate(token)
    return caught.value.code


def principal_of(user: User) -> Principal:
    return Principal(user.id, user.username, user.is_admin)


async def key_of(service: AccountService, user: User, **options: Any) -> tuple[str, str]:
    """A new key's id and the key itself."""
    made = await service.create_key(principal_of(user), **{"name": "farm", "scopes": ["report"], **options})
    return made.key.id, made.token


# Logins


async def test_a_login_reads_and_writes(service: AccountService, ada: User) -> None:
    token, expires_at = await service.issue_token(ada.id, lifetime=60)
    principal = await service.authenticate(token)
    assert principal == Caller(
        ada.id, "Ada", False, frozenset(), expires_at, None, frozenset({"read", "write"}), 0
    )


async def test_rights_are_those_of_now(
    service: AccountService, accounts: Counted, admin: User, ada: User
) -> None:
    token, _ = await service.issue_token(ada.id)
    await service.authenticate(token)
    team = await service.create_team("Red")
    await service.add_member(team.id, ada.id)
    assert (await service.authenticate(token)).teams == {team.id}
    await service.update_user(ada.id, is_admin=True)
    assert (await service.authenticate(token)).is_admin
    await service.remove_member(team.id, ada.id)
    assert (await service.authenticate(token)).teams == frozenset()
    await service.update_user(ada.id, disabled=True)
    assert await refused(service, token) == "UNAUTHORIZED"


async def test_a_revoked_login_is_refused_at_once(service: AccountService, ada: User) -> None:
    token, _ = await service.issue_token(ada.id)
    principal = await service.authenticate(token)
    await service.logout_everywhere(ada.id)
    assert await refused(service, token) == "UNAUTHORIZED"
    with pytest.raises(TaskwireError, match="ended"):
        await service.refresh_principal(principal)
    assert await passes(service, (await service.issue_token(ada.id))[0])


async def test_what_another_node_changed_counts_after_a_moment(
    service: AccountService, accounts: Counted, clock: Clock, ada: User
) -> None:
    token, _ = await service.issue_token(ada.id)
    await service.authenticate(token)
    await accounts.change_user(ada.id, {}, revoke=True)
    assert await passes(service, token)
    clock.advance(3)
    assert await refused(service, token) == "UNAUTHORIZED"


async def test_a_user_who_is_gone(service: AccountService, ada: User) -> None:
    token, _ = await service.issue_token(ada.id)
    await service.authenticate(token)
    await service.delete_user(ada.id)
    assert await refused(service, token) == "UNAUTHORIZED"


async def test_an_expired_login(service: AccountService, clock: Clock, ada: User) -> None:
    token, _ = await service.issue_token(ada.id, lifetime=60)
    principal = await service.authenticate(token)
    clock.advance(60)
    assert await refused(service, token) == "TOKEN_EXPIRED"
    with pytest.raises(TaskwireError) as caught:
        await service.refresh_principal(principal)
    assert caught.value.code == "TOKEN_EXPIRED"


async def test_a_principal_is_brought_up_to_date(service: AccountService, ada: User) -> None:
    principal = await service.authenticate((await service.issue_token(ada.id))[0])
    team = await service.create_team("Red")
    await service.add_member(team.id, ada.id)
    assert isinstance(principal, Caller)
    assert await service.refresh_principal(principal) == replace(principal, teams=frozenset({team.id}))


async def test_a_change_during_the_look_up_is_not_missed(
    service: AccountService, accounts: Counted, ada: User
) -> None:
    token, _ = await service.issue_token(ada.id)
    accounts.asked.clear()
    hold = accounts.hold = asyncio.Event()
    waiting = asyncio.create_task(service.authenticate(token))
    await eventually_async(lambda: accounts.asked == ["access"])
    accounts.hold = None
    await service.logout_everywhere(ada.id)  # the query has read the row as it was before
    hold.set()
    with pytest.raises(TaskwireError, match="ended"):
        await waiting


async def test_five_thousand_users_who_come_back_at_once_cost_a_few_queries(
    service: AccountService, accounts: Counted
) -> None:
    users = [User(f"user_{n}", f"u{n}", f"u{n}", 0) for n in range(200)]
    for user in users:
        await accounts.add_user(user)
    tokens = [(await service.issue_token(user.id))[0] for user in users]
    accounts.asked.clear()
    found = await asyncio.gather(*(service.authenticate(tokens[n % 200]) for n in range(5000)))
    assert [principal.user_id for principal in found[:200]] == [user.id for user in users]
    assert len(accounts.asked) <= 3


async def test_a_database_that_is_away_is_not_the_tokens_fault(
    service: AccountService, accounts: Counted, ada: User
) -> None:
    token, _ = await service.issue_token(ada.id)
    accounts.away = True
    assert await refused(service, token) == "UNAVAILABLE"
    accounts.away = False
    assert await passes(service, token)


# API keys


async def test_a_key_acts_for_its_owner_within_its_scopes(service: AccountService, ada: User) -> None:
    key_id, token = await key_of(service, ada)
    principal = await service.authenticate(token)
    assert principal == Caller(ada.id, "Ada", key_id=key_id, scopes=frozenset({"report"}))
    assert allows(principal, "report")
    assert not allows(principal, "read")
    assert not allows(principal, "write")


@pytest.mark.parametrize("scope", ["read", "write", "report"])
def test_writing_includes_reporting_and_nothing_else_includes_anything(scope: str) -> None:
    covered = {
        wanted
        for wanted in ("read", "write", "report")
        if allows(Principal("u", "u", scopes=frozenset({scope})), wanted)
    }
    assert covered == ({"write", "report"} if scope == "write" else {scope})


async def test_a_key_with_another_secret_is_refused(service: AccountService, ada: User) -> None:
    _, token = await key_of(service, ada)
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    for wrong in (
        other,
        token[:-1],
        token + "0",
        token.upper(),
        token + "\n",
        "tw_",
        "tw_x_y",
        "tw_" + "0" * 10_000,
    ):
        assert await refused(service, wrong) == "UNAUTHORIZED"


@given(st.text().map("tw_{}".format) | st.from_regex(r"tw_[0-9a-z]{26}_[0-9a-f]{64}", fullmatch=True))
def test_any_text_as_a_key_is_refused_and_nothing_else_happens(token: str) -> None:
    class Empty(Accounts):
        async def keys_by_id(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
            return {}

    async def run() -> str:
        service = make_service(Empty(cast(Database, None)), Clock())
        try:
            return await refused(service, token)
        finally:
            await service.close()

    assert asyncio.run(run()) == "UNAUTHORIZED"


async def test_a_key_expires(service: AccountService, clock: Clock, ada: User) -> None:
    _, token = await key_of(service, ada, expires_at=clock() + 1000)
    principal = await service.authenticate(token)
    assert principal.expires_at == clock() + 1000
    clock.advance(1)
    assert await refused(service, token) == "TOKEN_EXPIRED"


async def test_a_revoked_key_is_refused_at_once(service: AccountService, ada: User) -> None:
    key_id, token = await key_of(service, ada)
    principal = await service.authenticate(token)
    await service.revoke_key(principal_of(ada), key_id)
    assert await refused(service, token) == "UNAUTHORIZED"
    with pytest.raises(TaskwireError, match="revoked"):
        await service.refresh_principal(principal)


async def test_the_key_of_a_disabled_user_is_refused(service: AccountService, ada: User) -> None:
    _, token = await key_of(service, ada)
    await service.authenticate(token)
    await service.update_user(ada.id, disabled=True)
    assert await refused(service, token) == "UNAUTHORIZED"
    await service.update_user(ada.id, disabled=False)
    assert await passes(service, token)


async def test_use_of_a_key_is_noted_once_a_minute(
    service: AccountService, accounts: Counted, clock: Clock, ada: User
) -> None:
    key_id, token = await key_of(service, ada)

    async def noted() -> int | None:
        await service.close()  # what is to be written down is written by then
        key = await accounts.key(key_id)
        assert key is not None
        return key.last_used_at

    first = clock()
    for _ in range(100):
        await service.authenticate(token)
    assert await noted() == first
    for _ in range(59):
        clock.advance(1)
        await service.authenticate(token)
    assert await noted() == first
    clock.advance(1)
    await service.authenticate(token)
    assert await noted() == first + 60_000
    assert accounts.asked.count("touch") == 2


async def test_a_note_that_fails_does_no_harm(
    service: AccountService, accounts: Counted, clock: Clock, ada: User
) -> None:
    key_id, token = await key_of(service, ada)
    await service.authenticate(token)
    await service.close()
    clock.advance(120)

    async def fail(key_ids: Sequence[str], now: int) -> None:
        raise Unavailable

    working, accounts.touch_keys = accounts.touch_keys, fail  # type: ignore[method-assign]
    assert await passes(service, token)
    await service.close()
    accounts.touch_keys = working  # type: ignore[method-assign]
    assert await passes(service, token)
    await service.close()
    key = await accounts.key(key_id)
    assert key is not None
    assert key.last_used_at == clock()


# Users of the identity provider


async def test_a_user_is_made_when_first_seen(
    service: AccountService, accounts: Counted, clock: Clock
) -> None:
    token = outside(clock, "ada-0", preferred_username="ada", email="ada@example.com")
    first = await service.authenticate(token)
    assert (first.username, first.is_admin, first.teams) == ("ada", False, frozenset())
    assert first.scopes == {"read", "write"}
    assert first.expires_at == clock() // 1000 * 1000 + 65_000
    clock.advance(10)
    assert (await service.authenticate(token)).user_id == first.user_id
    user = await accounts.user(first.user_id)
    assert user is not None
    assert (user.issuer, user.subject, user.password_hash) == (ISSUER, "ada-0", None)


async def test_a_name_leads_to_nobody_elses_account(service: AccountService, clock: Clock, ada: User) -> None:
    found = [
        await service.authenticate(outside(clock, f"ada-{n}", preferred_username=name))
        for n, name in enumerate(["Ada", "ADA", "ａｄａ", "root"])
    ]
    assert [principal.username for principal in found] == ["Ada-2", "ADA-3", "ada-4", "root-2"]
    assert len({principal.user_id for principal in found} | {ada.id}) == 5
    assert not any(principal.is_admin for principal in found)


async def test_names_do_not_run_out(service: AccountService, clock: Clock) -> None:
    found = [await service.authenticate(outside(clock, f"s-{n}", email="x" * 200)) for n in range(12)]
    assert len({principal.username for principal in found}) == 12
    many = [
        await service.authenticate(outside(clock, f"t-{n}", preferred_username="y" * 128)) for n in range(12)
    ]
    assert len({principal.username for principal in many}) == 12
    assert all(len(principal.username) <= MAX_NAME for principal in many)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({}, "sub-0"),
        ({"email": "a@b.example"}, "a@b.example"),
        ({"preferred_username": "\x07", "email": "a@b.example"}, "a@b.example"),
        ({"preferred_username": " Ada  ", "email": "a@b.example"}, "Ada"),
        ({"preferred_username": 5, "email": None}, "sub-0"),
    ],
)
async def test_the_best_name_is_taken(
    service: AccountService, clock: Clock, claims: dict[str, Any], name: str
) -> None:
    assert (await service.authenticate(outside(clock, "sub-0", **claims))).username == name


async def test_a_subject_that_makes_no_name(service: AccountService, clock: Clock) -> None:
    assert (await service.authenticate(outside(clock, "\x07\x08"))).username == "user"


async def test_one_user_for_many_first_requests_at_once(service: AccountService, clock: Clock) -> None:
    token = outside(clock, "ada-0", email="ada@example.com")
    found = await asyncio.gather(*(service.authenticate(token) for _ in range(20)))
    assert {principal.username for principal in found} == {"ada@example.com"}
    assert len(await service.users(limit=10)) == 1


async def test_a_disabled_user_stays_out_and_a_deleted_one_comes_back_as_another(
    service: AccountService, clock: Clock, admin: User
) -> None:
    token = outside(clock, "ada-0", email="ada@example.com")
    first = await service.authenticate(token)
    await service.update_user(first.user_id, disabled=True)
    assert await refused(service, token) == "UNAUTHORIZED"
    await service.delete_user(first.user_id)
    again = await service.authenticate(token)
    assert again.user_id != first.user_id


# Names


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * 129, "a\0b", "a\nb", "a\u2028b", "\ud800", "\ue000", "a\x7f"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^The user name must"):
        clean_name(name)


@pytest.mark.parametrize(
    ("name", "stored"), [(" Ada ", "Ada"), ("ａｄａ", "ada"), ("李雷", "李雷"), ("José", "José")]
)
def test_names_that_are_taken(name: str, stored: str) -> None:
    assert clean_name(name) == stored


@given(st.text())
def test_a_clean_name_stays_as_it_is(name: str) -> None:
    try:
        clean = clean_name(name)
    except InvalidRequest:
        return
    assert clean_name(clean) == clean
    assert len(name_key(clean)) <= 384
    assert name_key(clean.upper()) == name_key(name_key(clean.upper()))


async def test_teams_are_shown_by_name(service: AccountService, admin: User, ada: User) -> None:
    teams = [await service.create_team(name) for name in ("Red", "Blue")]
    for team in teams:
        await service.add_member(team.id, ada.id)
    access = await service.user(ada.id)
    assert access.teams == (Team(teams[1].id, "Blue", teams[1].created_at), teams[0])
