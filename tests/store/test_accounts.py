"""The contract of the account rows, on SQLite and PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from taskwire.core.errors import NotFound, TaskwireError, Unavailable
from taskwire.store.accounts import Access, Accounts, ApiKey, Member, RefreshToken, Team, User
from taskwire.store.database import Database
from tests.support.accounts import DATABASES, database_url, open_database

pytestmark = pytest.mark.anyio

ADA = User("user_1", "Ada", "ada", 1000, is_admin=True, password_hash="hash-of-ada")
BOB = User("user_2", "Bob", "bob", 2000)
EVE = User("user_3", "Eve", "eve", 3000, issuer="https://id.example", subject="eve-0")
RED = Team("team_1", "Red", 1000)
BLUE = Team("team_2", "Blue", 2000)
KEY = ApiKey("key_1", "user_1", "farm", "aa" * 32, frozenset({"read", "report"}), 1000, expires_at=9000)
TOKEN = RefreshToken("refresh_1", "user_1", "login_1", "bb" * 32, 0, 1000, 5000)


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(database_url(request.param, request, tmp_path)) as opened:
        yield opened


@pytest.fixture
async def accounts(database: Database) -> Accounts:
    found = Accounts(database)
    for user in (ADA, BOB, EVE):
        await found.add_user(user)
    for team in (RED, BLUE):
        await found.add_team(team)
    return found


async def refuses(code: str, attempt: object) -> None:
    with pytest.raises(TaskwireError) as caught:
        await attempt  # type: ignore[misc]
    assert caught.value.code == code


# Users


async def test_users_are_given_back_as_they_were_added(accounts: Accounts) -> None:
    assert await accounts.user("user_1") == ADA
    assert await accounts.user_by_name("eve") == EVE
    assert await accounts.user("user_9") is None
    assert await accounts.user_by_name("Eve") is None
    assert await accounts.subjects("https://id.example", ["eve-0", "x"]) == {"eve-0": "user_3"}
    assert await accounts.subjects("https://other.example", ["eve-0"]) == {}


async def test_the_hash_of_a_password_is_not_shown_by_repr() -> None:
    assert "hash-of-ada" not in repr(ADA)
    assert "aa" * 32 not in repr(KEY)
    assert "bb" * 32 not in repr(TOKEN)


@pytest.mark.parametrize(
    "twin",
    [
        replace(BOB, id="user_4"),
        replace(EVE, id="user_4", username="x", username_key="x"),
        replace(BOB, username="x", username_key="x"),
    ],
    ids=["name", "subject", "id"],
)
async def test_nobody_is_added_twice(accounts: Accounts, twin: User) -> None:
    await refuses("ALREADY_EXISTS", accounts.add_user(twin))
    assert len(await accounts.users(limit=10)) == 3


async def test_many_may_have_no_subject(accounts: Accounts) -> None:
    assert ADA.subject is None
    assert BOB.subject is None  # both were added


async def test_the_first_user_is_added_to_an_empty_database_only(database: Database) -> None:
    accounts = Accounts(database)
    assert await accounts.add_first_user(ADA)
    assert not await accounts.add_first_user(BOB)
    assert await accounts.users(limit=10) == [ADA]


async def test_of_two_first_users_at_once_one_is_added(database: Database) -> None:
    accounts = Accounts(database)
    added = await asyncio.gather(*(accounts.add_first_user(replace(ADA, id=f"user_{n}")) for n in range(4)))
    assert sorted(added) == [False, False, False, True]


async def test_users_come_in_pages(accounts: Accounts) -> None:
    assert await accounts.users(limit=2) == [ADA, BOB]
    assert await accounts.users(after="user_2", limit=2) == [EVE]


async def test_a_change_gives_the_new_row(accounts: Accounts) -> None:
    changed = await accounts.change_user("user_2", {"is_admin": True, "disabled_at": None})
    assert changed == replace(BOB, is_admin=True) == await accounts.user("user_2")
    assert await accounts.user("user_1") == ADA
    with pytest.raises(NotFound):
        await accounts.change_user("user_9", {"is_admin": True})


async def test_revoking_raises_the_epoch_and_drops_the_refresh_tokens(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    await accounts.add_refresh_token(replace(TOKEN, id="refresh_2", user_id="user_2"))
    changed = await accounts.change_user("user_1", {"password_hash": "new"}, revoke=True)
    assert changed == replace(ADA, password_hash="new", token_epoch=1)
    assert await accounts.refresh_token("refresh_1") is None
    assert await accounts.refresh_token("refresh_2") is not None


async def test_a_hash_is_replaced_unless_the_password_has_changed(accounts: Accounts) -> None:
    await accounts.replace_hash("user_1", "hash-of-ada", "better")
    await accounts.replace_hash("user_1", "hash-of-ada", "too late")
    assert await accounts.user("user_1") == replace(ADA, password_hash="better")


@pytest.mark.parametrize("changes", [{"is_admin": False}, {"disabled_at": 5000}])
async def test_the_last_administrator_stays(accounts: Accounts, changes: dict[str, object]) -> None:
    await refuses("CONFLICT", accounts.change_user("user_1", changes))
    await refuses("CONFLICT", accounts.delete_user("user_1"))
    assert await accounts.user("user_1") == ADA
    await accounts.change_user("user_2", {"is_admin": True})
    await accounts.change_user("user_1", changes)
    await refuses("CONFLICT", accounts.delete_user("user_2"))


async def test_two_administrators_cannot_remove_each_other_at_once(accounts: Accounts) -> None:
    await accounts.change_user("user_2", {"is_admin": True})
    attempts = (
        accounts.change_user("user_1", {"is_admin": False}),
        accounts.delete_user("user_2"),
    )
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, TaskwireError) for outcome in outcomes) == 1
    assert [user.is_admin for user in await accounts.users(limit=10)].count(True) == 1


async def test_with_a_user_goes_all_that_lets_them_in(accounts: Accounts) -> None:
    await accounts.change_user("user_2", {"is_admin": True})
    await accounts.add_key(KEY, limit=9)
    await accounts.add_refresh_token(TOKEN)
    await accounts.add_member("team_1", "user_1", 1)
    assert await accounts.delete_user("user_1")
    assert not await accounts.delete_user("user_1")
    assert await accounts.user("user_1") is None
    assert await accounts.key("key_1") is None
    assert await accounts.refresh_token("refresh_1") is None
    assert await accounts.members("team_1", limit=10) == []


async def test_access_of_many_at_once(accounts: Accounts) -> None:
    await accounts.add_member("team_1", "user_1", 1)
    await accounts.add_member("team_2", "user_1", 2)
    await accounts.add_member("team_2", "user_2", 3)
    assert await accounts.access(["user_1", "user_2", "user_3", "user_9"]) == {
        "user_1": Access(ADA, (BLUE, RED)),  # by name
        "user_2": Access(BOB, (BLUE,)),
        "user_3": Access(EVE, ()),
    }


async def test_access_of_a_thousand(accounts: Accounts) -> None:
    ids = [f"user_{number}" for number in range(1000)]
    assert set(await accounts.access(ids)) == {"user_1", "user_2", "user_3"}


# Teams


async def test_teams_come_in_pages_and_by_member(accounts: Accounts) -> None:
    await accounts.add_member("team_2", "user_1", 1)
    assert await accounts.teams(limit=1) == [RED]
    assert await accounts.teams(after="team_1", limit=10) == [BLUE]
    assert await accounts.teams(member="user_1", limit=10) == [BLUE]
    assert await accounts.teams(member="user_2", limit=10) == []
    assert await accounts.team("team_1") == RED
    assert await accounts.team("team_9") is None


async def test_team_names_are_unique(accounts: Accounts) -> None:
    await refuses("ALREADY_EXISTS", accounts.add_team(replace(RED, id="team_3")))
    await refuses("ALREADY_EXISTS", accounts.rename_team("team_1", "Blue"))
    assert await accounts.rename_team("team_1", "Crimson") == replace(RED, name="Crimson")
    with pytest.raises(NotFound):
        await accounts.rename_team("team_9", "Green")


async def test_members_join_and_leave(accounts: Accounts) -> None:
    assert await accounts.add_member("team_1", "user_2", 5)
    assert not await accounts.add_member("team_1", "user_2", 6)
    assert await accounts.add_member("team_1", "user_1", 7)
    assert await accounts.members("team_1", limit=10) == [
        Member("user_1", "Ada", 7),
        Member("user_2", "Bob", 5),
    ]
    assert await accounts.members("team_1", after="user_1", limit=1) == [Member("user_2", "Bob", 5)]
    assert await accounts.remove_member("team_1", "user_2")
    assert not await accounts.remove_member("team_1", "user_2")


@pytest.mark.parametrize(("team", "user"), [("team_9", "user_1"), ("team_1", "user_9")])
async def test_only_users_join_only_teams(accounts: Accounts, team: str, user: str) -> None:
    with pytest.raises(NotFound, match=f"no such {'team' if team == 'team_9' else 'user'}"):
        await accounts.add_member(team, user, 1)


async def test_joining_many_times_at_once(accounts: Accounts) -> None:
    joined = await asyncio.gather(*(accounts.add_member("team_1", "user_1", n) for n in range(5)))
    assert sorted(joined) == [False] * 4 + [True]


async def test_a_deleted_team_tells_who_was_in_it(accounts: Accounts) -> None:
    await accounts.add_member("team_1", "user_1", 1)
    await accounts.add_member("team_1", "user_2", 1)
    assert sorted(await accounts.delete_team("team_1") or []) == ["user_1", "user_2"]
    assert await accounts.delete_team("team_1") is None
    assert await accounts.delete_team("team_2") == []
    assert (await accounts.access(["user_1"]))["user_1"].teams == ()


# API keys


async def test_keys_are_given_back_as_they_were_added(accounts: Accounts) -> None:
    await accounts.add_key(KEY, limit=9)
    assert await accounts.key("key_1") == KEY
    assert await accounts.keys_by_id(["key_1", "key_9"]) == {"key_1": KEY}
    assert await accounts.keys("user_1", limit=9) == [KEY]
    assert await accounts.keys("user_1", after="key_1", limit=9) == []
    assert await accounts.keys("user_2", limit=9) == []


async def test_a_user_has_a_limited_number_of_valid_keys(accounts: Accounts) -> None:
    await accounts.add_key(KEY, limit=2)
    await accounts.add_key(replace(KEY, id="key_2", expires_at=1500), limit=2)
    await refuses("CONFLICT", accounts.add_key(replace(KEY, id="key_3"), limit=2))
    await accounts.add_key(replace(KEY, id="key_3", user_id="user_2"), limit=2)
    await accounts.add_key(replace(KEY, id="key_4", created_at=2000), limit=2)  # key_2 has expired by then
    await refuses("CONFLICT", accounts.add_key(replace(KEY, id="key_5", created_at=2000), limit=2))
    await accounts.revoke_key("key_1", 3000)
    await accounts.add_key(replace(KEY, id="key_5", created_at=2000), limit=2)


async def test_the_limit_holds_for_many_at_once(accounts: Accounts) -> None:
    attempts = (accounts.add_key(replace(KEY, id=f"key_{n}"), limit=3) for n in range(8))
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert outcomes.count(None) == 3 == len(await accounts.keys("user_1", limit=9))


async def test_a_key_needs_a_user(accounts: Accounts) -> None:
    with pytest.raises(NotFound):
        await accounts.add_key(replace(KEY, user_id="user_9"), limit=9)


async def test_a_key_is_revoked_once(accounts: Accounts) -> None:
    await accounts.add_key(KEY, limit=9)
    await accounts.revoke_key("key_1", 3000)
    await accounts.revoke_key("key_1", 4000)
    await accounts.revoke_key("key_9", 4000)
    assert await accounts.key("key_1") == replace(KEY, revoked_at=3000)


async def test_use_of_keys_is_noted(accounts: Accounts) -> None:
    await accounts.add_key(KEY, limit=9)
    await accounts.add_key(replace(KEY, id="key_2"), limit=9)
    await accounts.touch_keys(["key_1", "key_9"], 4000)
    assert await accounts.key("key_1") == replace(KEY, last_used_at=4000)
    assert await accounts.key("key_2") == replace(KEY, id="key_2")


# Refresh tokens


async def use(
    accounts: Accounts, token_id: str, next_id: str, now: int = 2000, hash: str = TOKEN.hash
) -> str:
    outcome, _ = await accounts.use_refresh_token(
        token_id, hash, now, next_id=next_id, next_hash=TOKEN.hash, expires_at=8000
    )
    return outcome


async def test_a_used_token_gives_its_successor(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    assert await accounts.use_refresh_token(
        "refresh_1", TOKEN.hash, 2000, next_id="refresh_2", next_hash="cc" * 32, expires_at=8000
    ) == (
        "rotated",
        successor := RefreshToken("refresh_2", "user_1", "login_1", "cc" * 32, 0, 2000, 8000),
    )
    assert await accounts.refresh_token("refresh_2") == successor
    assert await accounts.refresh_token("refresh_1") == replace(TOKEN, used_at=2000)


async def test_a_token_used_twice_ends_the_whole_family_and_no_other(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    await accounts.add_refresh_token(replace(TOKEN, id="refresh_other", family="login_2"))
    assert await use(accounts, "refresh_1", "refresh_2") == "rotated"
    assert await use(accounts, "refresh_2", "refresh_3") == "rotated"
    assert await use(accounts, "refresh_1", "refresh_4") == "reused"
    assert await use(accounts, "refresh_3", "refresh_5") == "unknown"
    assert await use(accounts, "refresh_other", "refresh_6") == "rotated"


async def test_of_many_uses_at_once_one_counts_and_the_family_ends(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    outcomes = await asyncio.gather(*(use(accounts, "refresh_1", f"refresh_{n + 2}") for n in range(4)))
    assert outcomes.count("rotated") == 1
    assert outcomes.count("reused") >= 1
    for number in range(6):
        assert await accounts.refresh_token(f"refresh_{number}") is None


@pytest.mark.parametrize(
    ("token_id", "now", "hash"),
    [("refresh_9", 2000, TOKEN.hash), ("refresh_1", 2000, "dd" * 32), ("refresh_1", 5000, TOKEN.hash)],
    ids=["no such token", "another secret", "expired"],
)
async def test_other_tokens_are_unknown_and_harm_nobody(
    accounts: Accounts, token_id: str, now: int, hash: str
) -> None:
    await accounts.add_refresh_token(TOKEN)
    assert await use(accounts, token_id, "refresh_2", now, hash) == "unknown"
    assert await accounts.refresh_token("refresh_1") == TOKEN


async def test_a_guess_at_a_used_token_does_not_end_the_family(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    assert await use(accounts, "refresh_1", "refresh_2") == "rotated"
    assert await use(accounts, "refresh_1", "refresh_3", hash="dd" * 32) == "unknown"
    assert await use(accounts, "refresh_2", "refresh_3") == "rotated"


async def test_a_login_can_be_ended(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    await accounts.revoke_family("login_1")
    assert await accounts.refresh_token("refresh_1") is None


async def test_a_token_needs_a_user(accounts: Accounts) -> None:
    with pytest.raises(NotFound):
        await accounts.add_refresh_token(replace(TOKEN, user_id="user_9"))


async def test_tokens_past_their_time_are_removed(accounts: Accounts) -> None:
    await accounts.add_refresh_token(TOKEN)
    await accounts.add_refresh_token(replace(TOKEN, id="refresh_2", expires_at=5001))
    assert await accounts.purge(5000) == 1
    assert await accounts.refresh_token("refresh_1") is None
    assert await accounts.refresh_token("refresh_2") is not None


async def test_a_database_that_is_away_is_unavailable(
    postgres_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with open_database(database_url("postgresql", request, tmp_path)) as database:
        accounts = Accounts(database)
        await accounts.add_user(ADA)
        server = request.getfixturevalue("postgres")
        server.stop()
        try:
            with pytest.raises(Unavailable):
                await accounts.user("user_1")
            with pytest.raises(Unavailable):
                await accounts.add_user(BOB)
        finally:
            server.start()
        assert await accounts.user("user_1") == ADA
