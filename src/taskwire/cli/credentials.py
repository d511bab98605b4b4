"""Saved logins: one file that only its owner may read, under ``$XDG_CONFIG_HOME/taskwire`` (``~/.config/taskwire``)."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Login:
    """What ``taskwire login`` got for one server; ``expires_at`` of the token in ms since 1970."""

    username: str
    token: str
    expires_at: int
    refresh_token: str = ""


def credentials_file() -> Path:
    """Where logins are kept."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path there is to be ignored (XDG Base Directory Specification).
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return folder / "taskwire" / "credentials.json"


def find(url: str) -> Login | None:
    """The login saved for the server ``url``."""
    return _read().get(url)


def save(url: str, login: Login) -> None:
    """Keep a login, in place of an earlier one."""
    with exclusive():
        _write({**_read(), url: login})


def remove(url: str) -> Login | None:
    """Forget the login for ``url``; gives what it was."""
    with exclusive():
        logins = dict(_read())
        login = logins.pop(url, None)
        if login is not None:
            _write(logins)
        return login


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep other processes of this user from changing logins: a refresh token must not be used twice."""
    lock = credentials_file().with_suffix(".lock")
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_locked(url: str, login: Login) -> None:
    """``save`` for those who hold the lock already."""
    _write({**_read(), url: login})


def _read() -> Mapping[str, Login]:
    try:
        found: Any = json.loads(credentials_file().read_text(encoding="utf-8"))
        return {url: Login(**login) for url, login in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):  # damaged, or of another version: a new login mends it
        return {}


def _write(logins: Mapping[str, Login]) -> None:
    path = credentials_file()
    draft = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # in case the file was there, with other rights
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({url: asdict(login) for url, login in logins.items()}, file, indent=2)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
