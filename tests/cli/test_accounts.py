"""``taskwire user``, ``team``, ``key`` and ``token`` work on the database alone, and do what they say."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from taskwire.cli.direct import open_accounts
from taskwire.cli.effective import load
from taskwire.core.errors import TaskwireError
from taskwire.services.accounts import AccountService
from tests.cli.conftest import Run, one_line

PASSWORD = "a password of some length"


@pytest.fixture(autouse=True)
def database(run: Run, place: Path) -> Path:
    """An installation in the default place, with the user ada."""
    run("migrate")
    run("user", "add", "ada", "--password-stdin", input=PASSWORD + "\n")
    return place / "data" / "taskwire.db"


def users(run: Run) -> dict[str, Any]:
    return {user["username"]: user for user in json.loads(run("user", "list", "--json").stdout)}


def accepted(check: Callable[[AccountService], Awaitable[object]]) -> bool:
    """Whether the accounts in the database let somebody in."""

    async def ask() -> bool:
        async with open_accounts(load()) as accounts:
            try:
                await check(accounts)
            except TaskwireError:
                return False
            return True

    return asyncio.run(ask())


def logs_in(name: str, password: str) -> bool:
    return accepted(lambda accounts: accounts.login(name, password, None))


def test_a_user_can_log_in_with_the_password_given() -> None:
    assert logs_in("ada", PASSWORD)
    assert not logs_in("ada", PASSWORD + "\n")


def test_add(run: Run) -> None:
    made = run("user", "add", "grace", "--admin", "--generate")
    assert re.fullmatch(r"\S{20,}\n", made.stdout)
    assert "User grace made." in made.stderr
    found = users(run)
    assert (found["ada"]["isAdmin"], found["grace"]["isAdmin"]) == (False, True)
    answer = json.loads(run("user", "add", "edsger", "--generate", "--json").stdout)
    assert answer["username"] == "edsger"
    assert len(answer["password"]) >= 20


def test_add_refuses(run: Run) -> None:
    assert "exists already" in one_line(run("user", "add", "Ada", "--generate", code=1))
    assert "8 to 1024 characters" in one_line(
        run("user", "add", "x", "--password-stdin", input="short\n", code=1)
    )
    assert "There is no terminal" in one_line(run("user", "add", "x", code=1))
    assert "x" not in users(run)


def test_passwd_disable_and_remove(run: Run) -> None:
    run("user", "add", "grace", "--admin", "--generate")
    new = run("user", "passwd", "ada", "--generate").stdout.strip()
    assert logs_in("ada", new)
    assert not logs_in("ada", PASSWORD)
    assert "ada disabled" in run("user", "disable", "ada").stderr
    assert not logs_in("ada", new)
    assert users(run)["ada"]["disabled"] is True
    assert "ada enabled" in run("user", "disable", "ada", "--undo").stderr
    assert users(run)["ada"]["disabled"] is False
    assert run("user", "remove", "ada", input="n\n", code=1).stderr == "Nothing was done.\n"
    assert "ada" in users(run)
    assert "ada deleted" in run("user", "remove", "ada", input="y\n").stderr
    run("user", "add", "ada", "--generate")
    run("user", "remove", "ada", "--yes")
    assert "ada" not in users(run)
    for action in (["passwd", "--generate"], ["disable"], ["remove", "--yes"]):
        assert one_line(run("user", action[0], "ada", *action[1:], code=1)) == "There is no user 'ada'."


def test_the_last_administrator_stays(run: Run) -> None:
    run("user", "add", "grace", "--admin", "--generate")
    assert "last enabled administrator" in one_line(run("user", "disable", "grace", code=1))
    assert "last enabled administrator" in one_line(run("user", "remove", "grace", "--yes", code=1))


def test_teams(run: Run) -> None:
    assert run("team", "list").stderr == "No teams.\n"
    made = json.loads(run("team", "add", "Trailers", "--json").stdout)
    assert "exists already" in one_line(run("team", "add", "Trailers", code=1))
    run("team", "join", "Trailers", "ada")
    run("team", "join", made["teamId"], "ada")  # again, and by id
    (team,) = json.loads(run("team", "list", "--json").stdout)
    assert (team["name"], team["members"]) == ("Trailers", ["ada"])
    assert users(run)["ada"]["teams"] == ["Trailers"]
    assert "Trailers" in run("team", "list").stdout
    run("team", "leave", "Trailers", "ada")
    assert "no such member" in one_line(run("team", "leave", "Trailers", "ada", code=1))
    assert one_line(run("team", "join", "Nobody", "ada", code=1)) == "There is no team 'Nobody'."
    assert one_line(run("team", "join", "Trailers", "bob", code=1)) == "There is no user 'bob'."
    run("team", "remove", "Trailers", "--yes")
    assert json.loads(run("team", "list", "--json").stdout) == []


def test_more_than_a_page(run: Run) -> None:
    for number in range(3):
        run("team", "add", f"t{number}")
    env = {"TASKWIRE_MAX_PAGE": "100"}
    assert len(json.loads(run("team", "list", "--json", env=env).stdout)) == 3


def test_keys(run: Run) -> None:
    assert run("key", "list").stderr == "No API keys.\n"
    made = run("key", "add", "ada", "--name", "producer", "--scope", "report", "--expires", "30d")
    assert accepted(lambda accounts: accounts.authenticate(made.stdout.strip()))
    (key,) = json.loads(run("key", "list", "ada", "--json").stdout)
    assert (key["name"], key["scopes"], key["username"]) == ("producer", ["report"], "ada")
    assert key["revokedAt"] is None
    assert made.stdout.strip() not in json.dumps(key)
    assert "until 2" in run("key", "list").stdout
    other = json.loads(run("key", "add", "ada", "--json").stdout)
    assert (other["scopes"], other["expiresAt"]) == (["read", "write"], None)
    run("key", "revoke", key["keyId"])
    assert not accepted(lambda accounts: accounts.authenticate(made.stdout.strip()))
    states = {key["keyId"]: key["revokedAt"] for key in json.loads(run("key", "list", "--json").stdout)}
    assert states[key["keyId"]] is not None
    assert states[other["keyId"]] is None
    assert "revoked" in run("key", "list").stdout


def test_key_refuses(run: Run) -> None:
    assert "scopes must be" in one_line(run("key", "add", "ada", "--scope", "all", code=1))
    assert "no such API key" in one_line(run("key", "revoke", "key_x", code=1))
    assert one_line(run("key", "add", "bob", code=1)) == "There is no user 'bob'."
    for bad in ("soon", "0d", "2020-01-01", "-3h", "1y"):
        assert "wanted a time" in one_line(run("key", "add", "ada", "--expires", bad, code=2))


def test_token(run: Run, place: Path) -> None:
    assert "secret is not here" in one_line(run("token", "ada", code=1))
    (place / "data" / "secret").write_text("s" * 48)
    made = run("token", "ada", "--expires", "2h")
    claims = jwt.decode(made.stdout.strip(), options={"verify_signature": False})
    assert claims["name"] == "ada"
    assert claims["exp"] - claims["iat"] == pytest.approx(7200, abs=2)
    assert "Token of ada" in made.stderr
    answer = json.loads(run("token", "ada", "--json", env={"TASKWIRE_SECRET": "t" * 32}).stdout)
    assert answer["username"] == "ada"
    assert one_line(run("token", code=1)) == "There is no user 'admin'."
    run("user", "add", "grace", "--admin", "--generate")
    run("user", "disable", "ada")
    assert "will be refused" in run("token", "ada").stderr


@pytest.mark.parametrize("command", [["user", "list"], ["team", "list"], ["key", "list"], ["token"]])
def test_no_database(run: Run, place: Path, command: list[str]) -> None:
    """A wrong --data must not make an empty database and answer from that."""
    said = one_line(run(*command, "--data", "elsewhere", code=1, env={"TASKWIRE_SECRET": "s" * 32}))
    assert "no database at elsewhere/taskwire.db" in said
    assert not (place / "elsewhere").exists()


def test_a_database_of_another_version(run: Run, place: Path) -> None:
    (place / "old").mkdir()
    (place / "old" / "taskwire.db").touch()
    assert "taskwire migrate" in one_line(run("user", "list", "--data", "old", code=1))


def test_settings_name_the_database(run: Run, place: Path) -> None:
    run("migrate", "--database", "sqlite:///other.db")
    assert json.loads(run("user", "list", "--json", "--database", "sqlite:///other.db").stdout) == []
    (place / "my.toml").write_text('database = "sqlite:///other.db"')
    assert json.loads(run("user", "list", "--json", "--config", "my.toml").stdout) == []
    env = {"TASKWIRE_DATABASE": "sqlite:///other.db"}
    assert json.loads(run("user", "list", "--json", env=env).stdout) == []
    assert list(users(run)) == ["ada"]


def test_a_secret_is_not_made_on_the_way(run: Run, place: Path) -> None:
    run("user", "list")
    run("key", "add", "ada")
    assert not (place / "data" / "secret").exists()


def test_postgres(run: Run, postgres_url: str) -> None:
    run("migrate", "--database", postgres_url)
    run("user", "add", "ada", "--generate", "--database", postgres_url)
    assert [
        u["username"] for u in json.loads(run("user", "list", "--json", "--database", postgres_url).stdout)
    ] == ["ada"]
