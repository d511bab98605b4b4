"""Users, teams and keys: who may make and change what, and who is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskwire.core.errors import InvalidRequest, NotFound, TaskwireError
from taskwire.core.principals import Principal
from taskwire.services.accounts import MAX_KEYS, AccountService, new_password
from taskwire.store.accounts import Accounts, Team, User
from tests.support.accounts import PASSWORD, Clock, make_service, open_database

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'taskwire.db'}") as database:
        yield Accounts(database)


@pytest.fixture
async def service(accounts: Accounts, clock: Clock) -> AsyncIterator[AccountService]:
    made = make_service(accounts, clock)
    yield made
    await made.close()


@pytest.fixture
async def root(service: AccountService) -> User:
    return await service.create_user("root", PASSWORD, is_admin=True)


@pytest.fixture
async def ada(service: AccountService, root: User) -> User:
    return await service.create_user("Ada", PASSWORD)


@pytest.fixture
async def red(service: AccountService) -> Team:
    return await service.create_team("Red")


@pytest.fixture
def told(service: AccountService) -> list[str]:
    """The users whose connections were told to look at their rights again."""
    found: list[str] = []
    service.on_access_changed.append(found.append)
    return found


def principal_of(user: User, *teams: Team) -> Principal:
    return Principal(user.id, user.username, user.is_admin, frozenset(team.id for team in teams))


# The first start


async def test_the_first_start_makes_an_admin_and_a_password(service: AccountService) -> None:
    password = await service.bootstrap()
    assert password is not None
    assert len(password) >= 20
    login = await service.login("admin", password, None)
    assert login.access.user.is_admin
    assert await service.bootstrap() is None
    assert [user.username for user in await service.users(limit=10)] == ["admin"]


async def test_the_given_password_is_taken_and_not_shown(accounts: Accounts, clock: Clock) -> None:
    service = make_service(accounts, clock, admin_password="given password")
    try:
        assert await service.bootstrap() is None
        assert (await service.login("admin", "given password", None)).access.user.is_admin
    finally:
        await service.close()


async def test_a_given_password_that_is_too_short_is_told(accounts: Accounts, clock: Clock) -> None:
    service = make_service(accounts, clock, admin_password="short", password_min_length=12)
    try:
        with pytest.raises(InvalidRequest, match=r"^TASKWIRE_ADMIN_PASSWORD must have 12 to"):
            await service.bootstrap()
        assert await service.users(limit=10) == []
    finally:
        await service.close()


async def test_with_users_there_is_nothing_to_do(
    accounts: Accounts, service: AccountService, ada: User
) -> None:
    other = make_service(accounts, Clock(), admin_password="short")
    try:
        assert await other.bootstrap() is None
    finally:
        await other.close()
    assert len(await service.users(limit=10)) == 2


async def test_of_two_first_starts_one_makes_the_admin(accounts: Accounts, clock: Clock) -> None:
    services = [make_service(accounts, clock) for _ in range(3)]
    passwords = await asyncio.gather(*(service.bootstrap() for service in services))
    made = [password for password in passwords if password is not None]
    assert len(made) == 1
    assert (await services[0].login("admin", made[0], None)).access.user.is_admin
    for service in services:
        await service.close()


def test_made_passwords_differ_and_can_be_typed() -> None:
    made = {new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(not set(password) & set("Il1O0o") for password in made)


# Users


@pytest.mark.parametrize("name", ["ada", "ADA", " Ada", "ａｄａ"])
async def test_no_two_names_look_alike(service: AccountService, ada: User, name: str) -> None:
    with pytest.raises(TaskwireError) as caught:
        await service.create_user(name, PASSWORD)
    assert caught.value.code == "ALREADY_EXISTS"


async def test_a_user_is_found_by_name(service: AccountService, ada: User) -> None:
    assert await service.find_user("aDa") == ada
    for name in ("bob", "", "\0", "\ud800"):
        with pytest.raises(NotFound):
            await service.find_user(name)


async def test_bad_passwords_make_no_user(service: AccountService) -> None:
    with pytest.raises(InvalidRequest, match="must have 8 to"):
        await service.create_user("Bob", "short")
    assert await service.users(limit=10) == []


async def test_changes_of_a_user_are_told(service: AccountService, ada: User, told: list[str]) -> None:
    changed = await service.update_user(ada.id, is_admin=True)
    assert changed.is_admin
    assert told == [ada.id]
    await service.update_user(ada.id, is_admin=True)  # nothing has changed
    await service.update_user(ada.id)
    assert told == [ada.id]
    await service.update_user(ada.id, disabled=True)
    await service.update_user(ada.id, disabled=False)
    await service.update_user(ada.id, password="a better password")
    await service.delete_user(ada.id)
    assert told == [ada.id] * 5


async def test_an_admin_sets_a_password(service: AccountService, ada: User) -> None:
    login = await service.login("Ada", PASSWORD, None)
    await service.update_user(ada.id, password="a better password")
    with pytest.raises(TaskwireError):
        await service.authenticate(login.token)
    await service.login("Ada", "a better password", None)
    with pytest.raises(InvalidRequest):
        await service.update_user(ada.id, password="short")


async def test_a_user_of_the_identity_provider_gets_no_password(
    service: AccountService, accounts: Accounts
) -> None:
    await accounts.add_user(User("user_x", "Eve", "eve", 0, issuer="https://id.example", subject="e"))
    with pytest.raises(InvalidRequest, match="identity provider"):
        await service.update_user("user_x", password="a better password")


async def test_disabling_twice_keeps_the_first_time(service: AccountService, clock: Clock, ada: User) -> None:
    first = await service.update_user(ada.id, disabled=True)
    clock.advance(5)
    assert await service.update_user(ada.id, disabled=True) == first


@pytest.mark.parametrize("user_id", ["user_unknown", "", "a b", "\0", "\ud800", "x" * 1000])
async def test_unknown_users(service: AccountService, root: User, red: Team, user_id: str) -> None:
    attempts = (
        service.user(user_id),
        service.update_user(user_id, disabled=True),
        service.delete_user(user_id),
        service.add_member(red.id, user_id),
        service.remove_member(red.id, user_id),
        service.issue_token(user_id),
        service.create_key(principal_of(root), name="x", scopes=["read"], user_id=user_id),
    )
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt


async def test_a_cursor_must_be_one_of_ours(service: AccountService, root: User) -> None:
    for cursor in ("", "a b", "\0"):
        with pytest.raises(InvalidRequest, match="cursor"):
            await service.users(after=cursor, limit=10)


# Teams


async def test_teams_are_shown_to_members_and_admins(
    service: AccountService, root: User, ada: User, red: Team
) -> None:
    blue = await service.create_team("Blue")
    await service.add_member(red.id, ada.id)
    assert await service.teams(principal_of(ada, red), limit=10) == [red]
    assert {team.id for team in await service.teams(principal_of(root), limit=10)} == {red.id, blue.id}
    members = await service.members(principal_of(ada, red), red.id, limit=10)
    assert [member.username for member in members] == ["Ada"]
    assert await service.members(principal_of(root), blue.id, limit=10) == []
    with pytest.raises(NotFound):
        await service.members(principal_of(ada, red), blue.id, limit=10)


async def test_members_are_told_of_joining_leaving_and_the_end(
    service: AccountService, root: User, ada: User, red: Team, told: list[str]
) -> None:
    await service.add_member(red.id, ada.id)
    await service.add_member(red.id, ada.id)
    await service.add_member(red.id, root.id)
    assert told == [ada.id, root.id]
    await service.remove_member(red.id, ada.id)
    with pytest.raises(NotFound):
        await service.remove_member(red.id, ada.id)
    assert told == [ada.id, root.id, ada.id]
    await service.delete_team(red.id)
    assert told == [ada.id, root.id, ada.id, root.id]


async def test_a_new_name_of_a_team(service: AccountService, ada: User, red: Team, told: list[str]) -> None:
    await service.add_member(red.id, ada.id)
    token, _ = await service.issue_token(ada.id)
    await service.authenticate(token)
    assert (await service.rename_team(red.id, " Crimson ")).name == "Crimson"
    assert (await service.user(ada.id)).teams[0].name == "Crimson"
    for name in ("", "\0", "x" * 129):
        with pytest.raises(InvalidRequest, match=r"^The team's name"):
            await service.rename_team(red.id, name)


@pytest.mark.parametrize("team_id", ["team_unknown", "", "\0", "\ud800"])
async def test_unknown_teams(service: AccountService, root: User, team_id: str) -> None:
    attempts = (
        service.rename_team(team_id, "x"),
        service.delete_team(team_id),
        service.members(principal_of(root), team_id, limit=10),
        service.add_member(team_id, root.id),
        service.remove_member(team_id, root.id),
    )
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt


# API keys


async def test_a_key_is_shown_once_and_stored_as_a_hash(
    service: AccountService, accounts: Accounts, clock: Clock, ada: User
) -> None:
    made = await service.create_key(
        principal_of(ada), name=" farm ", scopes=["read", "report"], expires_at=clock() + 1
    )
    assert made.token.startswith("tw_")
    assert made.token not in repr(made)
    assert await service.keys(principal_of(ada), limit=10) == [made.key]
    assert made.key.name == "farm"
    assert made.key.scopes == {"read", "report"}
    assert made.token.rpartition("_")[2] not in str(await accounts.key(made.key.id))
    assert made.key.hash not in made.token


@pytest.mark.parametrize(
    "options",
    [
        {"scopes": []},
        {"scopes": ["admin"]},
        {"scopes": ["read", "everything"]},
        {"name": ""},
        {"name": "\0"},
        {"expires_at": 1_800_000_000_123},
        {"expires_at": 0},
    ],
    ids=str,
)
async def test_keys_that_cannot_be_made(
    service: AccountService, ada: User, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest):
        await service.create_key(principal_of(ada), **{"name": "farm", "scopes": ["read"], **options})  # type: ignore[arg-type]


async def test_a_key_makes_no_keys(service: AccountService, root: User) -> None:
    with pytest.raises(TaskwireError) as caught:
        await service.create_key(
            Principal(root.id, "root", is_admin=True, key_id="key_1"), name="more", scopes=["write"]
        )
    assert caught.value.code == "FORBIDDEN"


async def test_others_keys_are_the_admins_business(
    service: AccountService, root: User, ada: User, told: list[str]
) -> None:
    made = await service.create_key(principal_of(root), name="farm", scopes=["report"], user_id=ada.id)
    assert made.key.user_id == ada.id
    assert await service.keys(principal_of(root), user_id=ada.id, limit=10) == [made.key]
    own = await service.create_key(principal_of(root), name="mine", scopes=["read"])
    for attempt in (
        service.keys(principal_of(ada), user_id=root.id, limit=10),
        service.create_key(principal_of(ada), name="x", scopes=["read"], user_id=root.id),
    ):
        with pytest.raises(TaskwireError) as caught:
            await attempt
        assert caught.value.code == "FORBIDDEN"
    with pytest.raises(NotFound):
        await service.revoke_key(principal_of(ada), own.key.id)
    assert told == []
    await service.revoke_key(principal_of(root), made.key.id)
    await service.revoke_key(principal_of(ada), made.key.id)
    assert told == [ada.id, ada.id]
    assert [key.revoked_at is None for key in await service.keys(principal_of(ada), limit=10)] == [False]
    assert (await service.authenticate(own.token)).user_id == root.id


@pytest.mark.parametrize("key_id", ["key_unknown", "", "\0"])
async def test_unknown_keys(service: AccountService, root: User, key_id: str) -> None:
    with pytest.raises(NotFound):
        await service.revoke_key(principal_of(root), key_id)


async def test_keys_are_limited(service: AccountService, ada: User) -> None:
    made = [await service.create_key(principal_of(ada), name="k", scopes=["read"]) for _ in range(MAX_KEYS)]
    with pytest.raises(TaskwireError) as caught:
        await service.create_key(principal_of(ada), name="k", scopes=["read"])
    assert caught.value.code == "CONFLICT"
    await service.revoke_key(principal_of(ada), made[0].key.id)
    await service.create_key(principal_of(ada), name="k", scopes=["read"])


async def test_a_provider_set_up_by_half_is_told_at_the_start(accounts: Accounts, clock: Clock) -> None:
    with pytest.raises(ValueError, match="TASKWIRE_JWT_ISSUER and TASKWIRE_JWT_AUDIENCE must be set"):
        make_service(accounts, clock, jwks_url="https://id.example/jwks")
    with pytest.raises(ValueError, match="TASKWIRE_JWT_ALGORITHMS"):
        make_service(
            accounts,
            clock,
            jwks_url="https://id.example/jwks",
            jwt_issuer="https://id.example",
            jwt_audience="a",
            jwt_algorithms=("HS256",),
        )
