"""The one table of error codes, and the one table of WebSocket close codes.

Every refusal a client can see, over REST or a socket, names a row of ``ERRORS``. The tree of exceptions is small::

    TaskwireError          a refusal with a code from the table
    ├── InvalidRequest     the input is not what was wanted; says what was
    ├── NotFound           unknown, or somebody else's: the two are never told apart
    └── Unavailable        our own store or broker cannot answer now; ask again
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table: stable ``code``, default English ``text``, HTTP ``status``, and whether to ``retry``."""

    code: str
    text: str
    status: int
    retry: bool = False


_KINDS = (
    ErrorKind("INVALID_REQUEST", "The request is not valid.", 422),
    ErrorKind("INVALID_MESSAGE", "The message is not valid.", 400),
    ErrorKind("UNKNOWN_TYPE", "The message type is unknown.", 400),
    ErrorKind("MESSAGE_TOO_LARGE", "The message is too large.", 413),
    ErrorKind("UNAUTHORIZED", "A valid token is required.", 401),
    ErrorKind("INVALID_CREDENTIALS", "The user name or the password is wrong.", 401),
    ErrorKind("AUTH_TIMEOUT", "No login arrived in time.", 401, retry=True),
    ErrorKind("TOKEN_EXPIRED", "The token has expired; send a fresh one.", 401, retry=True),
    ErrorKind("FORBIDDEN", "This is not allowed for you.", 403),
    ErrorKind("NOT_FOUND", "There is no such thing.", 404),
    ErrorKind("TASK_NOT_FOUND", "There is no such task.", 404),
    ErrorKind("METHOD_NOT_ALLOWED", "The method is not allowed here.", 405),
    ErrorKind("CONFLICT", "The request conflicts with the present state.", 409),
    ErrorKind("ALREADY_EXISTS", "It exists already.", 409),
    ErrorKind("TASK_FINISHED", "The task has finished already.", 409),
    ErrorKind("TASK_NOT_FINISHED", "The task has not finished yet.", 409),
    ErrorKind("NOT_REPORTABLE", "This task's progress comes from its provider, not from reports.", 409),
    ErrorKind("IDEMPOTENCY_KEY_REUSED", "The Idempotency-Key was used for a different request.", 422),
    ErrorKind("UNKNOWN_PROVIDER", "There is no such provider.", 422),
    ErrorKind("UPGRADE_REQUIRED", "This address speaks WebSocket; connect with a WebSocket client.", 426),
    ErrorKind("RATE_LIMITED", "Too many requests; slow down.", 429, retry=True),
    ErrorKind("TOO_MANY_CONNECTIONS", "Too many connections.", 429, retry=True),
    ErrorKind("TOO_MANY_SUBSCRIPTIONS", "Too many subscriptions on this connection.", 429),
    ErrorKind("INTERNAL_ERROR", "Something went wrong on our side.", 500, retry=True),
    ErrorKind("UNAVAILABLE", "The service cannot answer right now.", 503, retry=True),
    ErrorKind("SERVER_SHUTDOWN", "The server is restarting; come back shortly.", 503, retry=True),
)

ERRORS: Final[Mapping[str, ErrorKind]] = {kind.code: kind for kind in _KINDS}
"""Every code that a client may be given, by code."""


class TaskwireError(Exception):
    """A refusal with a ``code`` of the table, a ``message`` for people, and optional JSON-able ``details``."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.kind = ERRORS[code]
        self.message = message or self.kind.text
        self.details = details
        self.retry_after = retry_after  # seconds; None where there is nothing useful to say
        super().__init__(self.message)

    @property
    def code(self) -> str:
        return self.kind.code

    @property
    def retryable(self) -> bool:
        return self.kind.retry

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"


class InvalidRequest(TaskwireError):
    """The input is not what was wanted; the message says what was."""

    def __init__(
        self, message: str, *, code: str = "INVALID_REQUEST", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(code, message, details=details)


class NotFound(TaskwireError):
    """Unknown or somebody else's: one answer for both, so that ids cannot be probed."""

    def __init__(self, code: str = "NOT_FOUND", message: str | None = None) -> None:
        super().__init__(code, message)


class Unavailable(TaskwireError):
    """Our own store or broker cannot answer now; the same request may be sent again."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = 1.0) -> None:
        super().__init__("UNAVAILABLE", message, retry_after=retry_after)


@dataclass(frozen=True, slots=True)
class CloseKind:
    """One row of the close-code table: WebSocket ``code``, default ``reason``, and whether to ``reconnect``."""

    code: int
    reason: str
    reconnect: bool


NORMAL = CloseKind(1000, "", False)
GOING_AWAY = CloseKind(1012, "server restarting", True)
POLICY = CloseKind(1008, "login failed", False)
TOO_BIG = CloseKind(1009, "message too big", False)
INTERNAL = CloseKind(1011, "internal error", True)
UNRESPONSIVE = CloseKind(1011, "no answer to ping", True)
TOO_SLOW = CloseKind(4008, "too slow: unread updates exceed the limit", True)
FLOOD = CloseKind(4029, "too many messages", True)
TOO_MANY_CONNECTIONS = CloseKind(4030, "too many connections of this user", False)
REVOKED = CloseKind(4003, "access revoked", False)

CLOSE_CODES: Final[tuple[CloseKind, ...]] = (
    NORMAL, GOING_AWAY, POLICY, TOO_BIG, INTERNAL, UNRESPONSIVE, REVOKED, TOO_SLOW, FLOOD, TOO_MANY_CONNECTIONS,
)  # fmt: skip
"""Every close code that the server itself may choose (1002 and 1007 come from RFC 6455 on a protocol violation)."""
