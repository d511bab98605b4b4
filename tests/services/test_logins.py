"""Logging in: guesses are slow and few, refresh tokens work once, and an ended login is ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.principals import Principal
from taskwire.services.accounts import AccountService, Login
from taskwire.store.accounts import Accounts, User
from tests.support.accounts import PASSWORD, Clock, make_service, open_database

pytestmark = pytest.mark.anyio

HOME = "192.0.2.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'taskwire.db'}") as database:
        yield Accounts(database)


@pytest.fixture
async def service(accounts: Accounts, clock: Clock) -> AsyncIterator[AccountService]:
    made = make_service(accounts, clock, login_attempts=3, login_window=300, refresh_lifetime=86_400)
    yield made
    await made.close()


@pytest.fixture
async def ada(service: AccountService) -> User:
    return await service.create_user("Ada", PASSWORD, is_admin=True)


async def fails(
    service: AccountService, username: str, password: str, address: str | None = HOME
) -> TaskwireError:
    with pytest.raises(TaskwireError) as caught:
        await service.login(username, password, address)
    return caught.value


async def cannot_refresh(service: AccountService, login: Login) -> None:
    with pytest.raises(TaskwireError) as caught:
        await service.refresh(login.refresh_token)
    assert caught.value.code == "UNAUTHORIZED"


async def is_alive(service: AccountService, login: Login) -> bool:
    try:
        await service.authenticate(login.token)
    except TaskwireError as error:
        if error.code != "UNAUTHORIZED":
            raise
        return False
    return True


# Logging in


async def test_the_right_password_opens_a_login(service: AccountService, clock: Clock, ada: User) -> None:
    team = await service.create_team("Red")
    await service.add_member(team.id, ada.id)
    login = await service.login("Ada", PASSWORD, HOME)
    assert login.access.user == ada
    assert login.access.teams == (team,)
    assert login.expires_at == clock() + 3600_000
    assert login.refresh_expires_at == clock() + 86_400_000
    principal = await service.authenticate(login.token)
    assert principal.user_id == ada.id
    assert principal.teams == {team.id}
    assert login.token not in repr(login)
    assert login.refresh_token not in repr(login)


@pytest.mark.parametrize("name", ["ada", "ADA", " Ada ", "ａｄａ"])
async def test_the_case_of_the_name_does_not_matter(service: AccountService, ada: User, name: str) -> None:
    assert (await service.login(name, PASSWORD, HOME)).access.user == ada


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("Ada", "wrong"),
        ("Ada", ""),
        ("Ada", PASSWORD + "\0"),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("\0", PASSWORD),
        ("\ud800", "\ud800"),
        ("x" * 10_000, "x" * 10_000),
        ("ada' OR 1=1 --", PASSWORD),
    ],
)
async def test_anything_else_is_refused_in_the_same_words(
    service: AccountService, ada: User, name: str, password: str
) -> None:
    error = await fails(service, name, password)
    assert (error.code, error.message) == ("INVALID_CREDENTIALS", "The user name or the password is wrong.")


async def test_a_disabled_user_is_refused_in_the_same_words(service: AccountService, ada: User) -> None:
    bob = await service.create_user("Bob", PASSWORD)
    await service.update_user(bob.id, disabled=True)
    assert (await fails(service, "Bob", PASSWORD)).code == "INVALID_CREDENTIALS"


async def test_a_user_of_the_identity_provider_has_no_password(
    service: AccountService, accounts: Accounts
) -> None:
    await accounts.add_user(User("user_x", "Eve", "eve", 0, issuer="https://id.example", subject="e"))
    for password in ("", PASSWORD):
        assert (await fails(service, "Eve", password)).code == "INVALID_CREDENTIALS"


async def test_no_password_and_no_name_is_logged(service: AccountService, ada: User) -> None:
    with capture_logs() as lines:
        await fails(service, "hunter2, typed into the wrong field", "another secret")
        await fails(service, "Ada", "a wrong secret")
    assert [line["event"] for line in lines] == ["login.failed", "login.failed"]
    assert "hunter2" not in str(lines)
    assert "secret" not in str(lines)
    assert lines[1]["userId"] == ada.id


# Guessing


async def test_a_name_is_blocked_after_so_many_failures_from_anywhere(
    service: AccountService, clock: Clock, ada: User
) -> None:
    for number in range(3):
        assert (await fails(service, "ada", "wrong", f"198.51.100.{number}")).code == "INVALID_CREDENTIALS"
        clock.advance(10)
    error = await fails(service, "ADA", PASSWORD, "203.0.113.9")
    assert (error.code, error.retry_after) == ("RATE_LIMITED", 270)
    clock.advance(269)
    assert (await fails(service, "ada", PASSWORD)).code == "RATE_LIMITED"
    clock.advance(1)
    await service.login("ada", PASSWORD, HOME)


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["192.0.2.1"] * 3, "192.0.2.2"),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"], "2001:db8:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], "::ffff:192.0.2.2"),
        (["a socket"] * 3, "another socket"),
    ],
    ids=["IPv4", "IPv6", "mapped", "other"],
)
async def test_an_address_is_blocked_after_so_many_failures_for_anybody(
    service: AccountService, ada: User, addresses: list[str], other: str
) -> None:
    for number, address in enumerate(addresses):
        assert (await fails(service, f"name{number}", "wrong", address)).code == "INVALID_CREDENTIALS"
    assert (await fails(service, "Ada", PASSWORD, addresses[0])).code == "RATE_LIMITED"
    await service.login("Ada", PASSWORD, other)


async def test_without_an_address_the_name_alone_counts(service: AccountService, ada: User) -> None:
    for number in range(10):
        assert (await fails(service, f"name{number}", "wrong", None)).code == "INVALID_CREDENTIALS"
    await service.login("Ada", PASSWORD, None)


async def test_many_guesses_at_once_are_counted_before_they_fail(service: AccountService, ada: User) -> None:
    errors = await asyncio.gather(
        *(fails(service, "Ada", f"guess {n}", f"198.51.100.{n}") for n in range(20))
    )
    assert [error.code for error in errors].count("INVALID_CREDENTIALS") == 3


async def test_logging_in_well_is_not_limited_and_clears_the_name(service: AccountService, ada: User) -> None:
    for _ in range(10):
        await service.login("Ada", PASSWORD, HOME)
    for _ in range(2):
        await fails(service, "Ada", "wrong", "198.51.100.1")
    await service.login("Ada", PASSWORD, HOME)
    for _ in range(2):
        assert (await fails(service, "Ada", "wrong", "198.51.100.2")).code == "INVALID_CREDENTIALS"


async def test_an_account_of_ones_own_does_not_buy_more_guesses(service: AccountService, ada: User) -> None:
    await service.create_user("Eve", PASSWORD)
    for number in range(3):
        await fails(service, f"victim{number}", "wrong")
        if number < 2:
            await service.login("Eve", PASSWORD, HOME)
    assert (await fails(service, "Eve", PASSWORD)).code == "RATE_LIMITED"


async def test_a_hash_of_old_parameters_is_renewed(
    accounts: Accounts, service: AccountService, ada: User
) -> None:
    stronger = make_service(
        accounts, Clock(), hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    )
    try:
        await stronger.login("Ada", PASSWORD, HOME)
        user = await accounts.user(ada.id)
        assert user is not None
        assert "m=16,t=2" in str(user.password_hash)
        assert user.token_epoch == 0
        await stronger.login("Ada", PASSWORD, HOME)
    finally:
        await stronger.close()


# Staying logged in


async def test_a_refresh_token_gives_the_next_pair(service: AccountService, clock: Clock, ada: User) -> None:
    first = await service.login("Ada", PASSWORD, HOME)
    clock.advance(3601)
    second = await service.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.refresh_expires_at == clock() + 86_400_000
    assert await is_alive(service, second)
    clock.advance(3601)
    assert await is_alive(service, await service.refresh(second.refresh_token))


async def test_a_stolen_refresh_token_ends_the_login_for_both(service: AccountService, ada: User) -> None:
    mine = await service.login("Ada", PASSWORD, HOME)
    other = await service.login("Ada", PASSWORD, HOME)
    stolen = await service.refresh(mine.refresh_token)
    with capture_logs() as lines:
        await cannot_refresh(service, mine)
    assert [line["event"] for line in lines] == ["login.refresh_token_reused"]
    await cannot_refresh(service, stolen)
    await service.refresh(other.refresh_token)


async def test_a_refresh_token_expires(service: AccountService, clock: Clock, ada: User) -> None:
    login = await service.login("Ada", PASSWORD, HOME)
    clock.advance(86_400)
    await cannot_refresh(service, login)
    assert await service.purge() == 1


@pytest.mark.parametrize("token", ["", "tw_refresh_", "x" * 100_000, "\0", "\ud800"])
async def test_what_is_no_refresh_token(service: AccountService, ada: User, token: str) -> None:
    login = await service.login("Ada", PASSWORD, HOME)
    await cannot_refresh(service, replace(login, refresh_token=token))
    await cannot_refresh(service, replace(login, refresh_token=login.token))
    await cannot_refresh(service, replace(login, refresh_token=login.refresh_token[:-1] + "!"))
    with pytest.raises(TaskwireError):
        await service.authenticate(login.refresh_token)
    await service.refresh(login.refresh_token)


@pytest.mark.parametrize("change", ["disabled", "deleted", "everywhere"])
async def test_whoever_lost_their_rights_gets_no_new_token(
    service: AccountService, ada: User, change: str
) -> None:
    bob = await service.create_user("Bob", PASSWORD)
    login = await service.login("Bob", PASSWORD, HOME)
    if change == "disabled":
        await service.update_user(bob.id, disabled=True)
    elif change == "deleted":
        await service.delete_user(bob.id)
    else:
        await service.logout_everywhere(bob.id)
    await cannot_refresh(service, login)
    assert not await is_alive(service, login)
    if change == "disabled":
        await service.update_user(bob.id, disabled=False)
        await cannot_refresh(service, login)
        assert not await is_alive(service, login)


async def test_a_login_of_an_older_epoch_cannot_be_refreshed(
    service: AccountService, accounts: Accounts, ada: User
) -> None:
    login = await service.login("Ada", PASSWORD, HOME)
    # The row survives here as it would if a password change and this login crossed.
    await accounts.change_user(ada.id, {"token_epoch": 1})
    await cannot_refresh(service, login)
    await accounts.change_user(ada.id, {"token_epoch": 0})
    await cannot_refresh(service, login)  # the family is gone


# Logging out


async def test_logging_out_ends_one_login(service: AccountService, clock: Clock, ada: User) -> None:
    one, two, three = [await service.login("Ada", PASSWORD, HOME) for _ in range(3)]
    await service.logout(refresh_token=one.refresh_token)
    await cannot_refresh(service, one)
    clock.advance(7200)  # the access token has expired; it still says which login it is of
    await service.logout(access_token=two.token)
    await cannot_refresh(service, two)
    await service.refresh(three.refresh_token)


async def test_nobody_is_logged_out_by_tokens_that_are_not_genuine(
    service: AccountService, ada: User
) -> None:
    login = await service.login("Ada", PASSWORD, HOME)
    wrong = login.refresh_token[:-1] + ("0" if login.refresh_token[-1] != "0" else "1")
    await service.logout(refresh_token=wrong, access_token=login.token[:-2] + "AA")
    await service.logout(refresh_token="nonsense", access_token="tw_nonsense")
    await service.logout()
    await service.refresh(login.refresh_token)


# Changing the password


async def test_a_new_password_ends_every_login_but_the_one_it_opens(
    service: AccountService, ada: User
) -> None:
    told: list[str] = []
    service.on_access_changed.append(told.append)
    old = await service.login("Ada", PASSWORD, HOME)
    principal = await service.authenticate(old.token)
    new = await service.change_password(principal, PASSWORD, "a better password", HOME)
    assert told == [ada.id]
    assert not await is_alive(service, old)
    await cannot_refresh(service, old)
    assert await is_alive(service, new)
    await service.refresh(new.refresh_token)
    assert (await fails(service, "Ada", PASSWORD)).code == "INVALID_CREDENTIALS"
    await service.login("Ada", "a better password", HOME)


async def test_the_present_password_is_needed_and_guesses_are_counted(
    service: AccountService, ada: User
) -> None:
    principal = Principal(ada.id, "Ada")
    codes = []
    for _ in range(4):
        with pytest.raises(TaskwireError) as caught:
            await service.change_password(principal, "wrong", "a better password", HOME)
        codes.append(caught.value.code)
    assert codes == ["INVALID_CREDENTIALS"] * 3 + ["RATE_LIMITED"]
    assert (await fails(service, "Ada", PASSWORD)).code == "RATE_LIMITED"


@pytest.mark.parametrize("new", ["short", PASSWORD, "x" * 2000])
async def test_a_bad_new_password_changes_nothing(service: AccountService, ada: User, new: str) -> None:
    login = await service.login("Ada", PASSWORD, HOME)
    with pytest.raises(InvalidRequest, match=r"^The new password must"):
        await service.change_password(Principal(ada.id, "Ada"), PASSWORD, new, HOME)
    assert await is_alive(service, login)


async def test_a_key_and_a_user_without_password_cannot_change_it(
    service: AccountService, accounts: Accounts, ada: User
) -> None:
    await accounts.add_user(User("user_x", "Eve", "eve", 0, issuer="https://id.example", subject="e"))
    for principal in (Principal(ada.id, "Ada", key_id="key_1"), Principal("user_x", "Eve")):
        with pytest.raises(TaskwireError) as caught:
            await service.change_password(principal, PASSWORD, "a better password", HOME)
        assert caught.value.code == "FORBIDDEN"
