"""The installation's secret: the configured one, else one made at the first start and kept in the data folder."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from taskwire.masking import register_secret
from taskwire.settings import Settings

FILE_NAME: Final = "secret"
_MIN_LENGTH: Final = 32


def installation_secret(settings: Settings) -> str:
    """The secret, 32 characters or more; from here on it is masked in log lines.

    The file is readable for its owner alone. Nodes with data folders of their own need TASKWIRE_SECRET to believe each
    other's tokens. Raises ValueError for a damaged file, and OSError if it cannot be read or written.
    """
    secret = settings.secret.get_secret_value() or _kept(settings.data / FILE_NAME)
    register_secret(secret)
    return secret


def _kept(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and then linked, which fails if another process was first: nobody ever reads half a secret.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return _read(path)


def _read(path: Path) -> str:
    secret = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(secret) < _MIN_LENGTH:
        raise ValueError(
            f"{path} is damaged: wanted {_MIN_LENGTH} characters or more. "
            "Remove it to have a new secret made (everybody then has to log in again), or set TASKWIRE_SECRET."
        )
    return secret
