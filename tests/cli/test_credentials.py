"""Saved logins: one file, for its owner's eyes only, whole at any time."""

import asyncio
import json
import stat
import threading
import time
from pathlib import Path

import pytest

from taskwire.cli import credentials
from taskwire.cli.credentials import Login, credentials_file, find, remove, save
from taskwire.cli.remote import connect, saved_token
from taskwire.client.errors import LoginRefused
from taskwire.client.rest import Rest, current_token

URL = "http://127.0.0.1:3000"
LOGIN = Login("ada", "jwt", 9_999_999_999_999, "refresh")


def test_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert credentials_file() == tmp_path / "taskwire" / "credentials.json"
    for value in ("relative", ""):  # to be ignored, as the specification says
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert credentials_file() == Path.home() / ".config" / "taskwire" / "credentials.json"


def test_save_find_remove() -> None:
    assert find(URL) is None
    save(URL, LOGIN)
    save("http://other", Login("bob", "x", 1))
    assert find(URL) == LOGIN
    assert remove(URL) == LOGIN
    assert remove(URL) is None
    assert find(URL) is None
    assert find("http://other") is not None


def test_only_the_owner_may_read_it() -> None:
    save(URL, LOGIN)
    path = credentials_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    save(URL, LOGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir() if file.name.startswith("credentials.json")] == [
        path.name
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"http://127.0.0.1:3000": {"odd": 1}}', '{"x": 1}'])
def test_a_damaged_file_is_no_login(text: str) -> None:
    credentials_file().parent.mkdir(parents=True)
    credentials_file().write_text(text)
    assert find(URL) is None
    save(URL, LOGIN)
    assert find(URL) == LOGIN


def test_many_at_once() -> None:
    threads = [threading.Thread(target=save, args=(f"http://{n}", LOGIN)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(credentials_file().read_text())) == 20


def test_not_logged_in() -> None:
    with pytest.raises(LoginRefused, match=r"taskwire login --url http://127\.0\.0\.1:3000"):
        connect(URL, "")


def test_a_fresh_login_is_used_as_it_is() -> None:
    save(URL, LOGIN)
    rest = connect(URL + "/", "")
    assert rest.token is not None
    assert asyncio.run(current_token(rest.token)) == "jwt"
    assert connect(URL, "given").token == "given"


def test_renewed_once_when_it_is_about_to_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at the same time: a refresh token that is used twice ends the login."""
    calls: list[str] = []

    async def refresh(_self: Rest, token: str) -> dict[str, object]:
        calls.append(token)
        await asyncio.sleep(0)
        return {
            "token": "jwt-2", "expiresAt": "2999-01-01T00:00:00.000Z", "refreshToken": "refresh-2",
            "user": {"username": "ada"},
        }  # fmt: skip

    monkeypatch.setattr(Rest, "refresh", refresh)
    save(URL, Login("ada", "jwt", int(time.time() * 1000) + 30_000, "refresh-1"))

    async def ask() -> list[str]:
        return await asyncio.gather(*(current_token(saved_token(URL)) for _ in range(5)))

    assert asyncio.run(ask()) == ["jwt-2"] * 5
    assert calls == ["refresh-1"]
    assert find(URL) == Login("ada", "jwt-2", 32_472_144_000_000, "refresh-2")


def test_a_login_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refresh(_self: Rest, _token: str) -> dict[str, object]:
        raise LoginRefused("UNAUTHORIZED", "no", status=401)

    monkeypatch.setattr(Rest, "refresh", refresh)
    for login in (Login("ada", "jwt", 0), Login("ada", "jwt", 0, "used-up")):
        save(URL, login)
        with pytest.raises(LoginRefused, match="taskwire login"):
            asyncio.run(current_token(saved_token(URL)))


def test_the_lock_is_held_across_processes() -> None:
    with credentials.exclusive():
        waiting = threading.Thread(target=save, args=(URL, LOGIN))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        assert find(URL) is None
    waiting.join()
    assert find(URL) == LOGIN
