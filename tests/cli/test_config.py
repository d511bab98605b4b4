"""``taskwire config`` tells every setting, where it comes from, and no secret; bad settings become readable lines."""

import json
from pathlib import Path
from typing import Any

from taskwire.settings import Settings
from tests.cli.conftest import Run, one_line

SECRET = "0123456789abcdef0123456789abcdef"


def shown(run: Run, *arguments: str, **options: Any) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(run("config", "--json", *arguments, **options).stdout)}


def test_every_setting(run: Run) -> None:
    found = shown(run)
    assert list(found) == list(Settings.model_fields)
    assert {one["source"] for one in found.values()} == {"default"}
    assert found["listen"]["value"] == ["127.0.0.1:3000"]
    text = run("config").stdout
    assert all(name in text for name in Settings.model_fields)


def test_sources(run: Run, place: Path) -> None:
    (place / ".env").write_text("TASKWIRE_MAX_PAGE=33\n")
    (place / "my.toml").write_text("max_reports = 44\n")
    env = {"TASKWIRE_CONFIG": "my.toml", "WS_AUTH_TIMEOUT": "500"}
    found = shown(run, "--changed", "--listen", "127.0.0.1:1", "--listen", "[::1]:1", env=env)
    assert {name: (one["value"], one["source"], one["variable"]) for name, one in found.items()} == {
        "config": ("my.toml", "environment", "TASKWIRE_CONFIG"),
        "listen": (["127.0.0.1:1", "[::1]:1"], "command line", "--listen"),
        "ws_auth_timeout_ms": (500, "environment", "WS_AUTH_TIMEOUT"),
        "max_page": (33, ".env", "TASKWIRE_MAX_PAGE"),
        "max_reports": (44, "my.toml", "max_reports"),
    }


def test_no_secret_is_shown(run: Run, place: Path) -> None:
    (place / "taskwire.toml").write_text('ws_auth_token = "hunter2-hunter2"\n')
    env = {
        "TASKWIRE_SECRET": SECRET,
        "TASKWIRE_DATABASE": "postgresql://ada:hunter3@db.example/taskwire",
        "TASKWIRE_BROKER": "redis://:hunter4@cache.example",
    }
    for arguments in ([], ["--json"], ["--changed"]):
        result = run("config", *arguments, env=env)
        assert "***" in result.stdout
        assert "***@db.example" in result.stdout
        for secret in (SECRET, "hunter"):
            assert secret not in result.output


def test_wrong_values_are_told_one_by_one(run: Run, place: Path) -> None:
    (place / ".env").write_text("TASKWIRE_LEASE=never\n")
    (place / "taskwire.toml").write_text("ws_deflate = 'perhaps'\n")
    env = {
        "WS_AUTH_TIMEOUT": "10s", "TASKWIRE_SECRET": "too-short-a-secret", "TASKWIRE_LOG_LEVEL": "loud",
        "TASKWIRE_RENDER_MAX_SIZE": "big", "TASKWIRE_MAX_PAGE": "0", "TASKWIRE_DATABASE": "mysql://a:hunter2@x/y",
    }  # fmt: skip
    result = run("config", "--listen", "3000", code=1, env=env)
    assert result.stdout == ""
    assert sorted(result.stderr.splitlines()) == [
        "taskwire: --listen (command line): wanted HOST:PORT, e.g. 127.0.0.1:3000 or [::1]:3000, but got '3000'",
        "taskwire: TASKWIRE_DATABASE (environment): wanted sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE, "
        "but got 'mysql://***@x/y'",
        "taskwire: TASKWIRE_LEASE (.env): wanted a number, but got 'never'",
        "taskwire: TASKWIRE_LOG_LEVEL (environment): wanted 'debug', 'info', 'warning' or 'error', but got 'loud'",
        "taskwire: TASKWIRE_MAX_PAGE (environment): wanted 1 or more, but got '0'",
        "taskwire: TASKWIRE_RENDER_MAX_SIZE (environment): wanted text such as 1920x1080, but got 'big'",
        "taskwire: TASKWIRE_SECRET (environment): wanted 32 characters or more, e.g. from `openssl rand -base64 48`",
        "taskwire: WS_AUTH_TIMEOUT (environment): wanted a whole number, but got '10s'",
        "taskwire: ws_deflate (taskwire.toml): wanted true or false, but got 'perhaps'",
    ]


def test_unusable_sources(run: Run, place: Path) -> None:
    assert "missing.toml cannot be read" in one_line(run("config", "--config", "missing.toml", code=1))
    (place / "taskwire.toml").write_text("lisen = 1\n")
    assert "did you mean `listen`" in one_line(run("config", code=1))


def test_variables_that_are_no_settings(run: Run) -> None:
    result = run("config", env={"TASKWIRE_LISTNE": "x", "TASKWIRE_QQQ": "x", "TASKWIRE_URL": "http://x"})
    assert "TASKWIRE_LISTNE is no setting; is TASKWIRE_LISTEN meant?" in result.stderr
    assert "TASKWIRE_QQQ is no setting." in result.stderr
    assert "TASKWIRE_URL" not in result.stderr
