"""What can go wrong between a client and a server.

The tree::

    ClientError            anything below
    ├── Refused            the server said no, with a code of its error table
    │   └── LoginRefused   … to the token
    ├── Unreachable        nobody answers at the address
    └── BadAnswer          somebody answers, but not as a Taskwire server does
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """The message is for people: one sentence."""


class Refused(ClientError):
    """The server's own answer: stable ``code``, HTTP ``status`` (None on a socket), whether to ask again."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.details = details


class LoginRefused(Refused):
    """The token is missing, wrong, expired or revoked."""


class Unreachable(ClientError):
    """No connection, or it broke before the answer came."""


class BadAnswer(ClientError):
    """The answer is not what a Taskwire server gives; the address may be somebody else's."""
