"""Errors as problem+json (RFC 9457), every one of them with a code of the one error table."""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from taskwire.core.errors import ERRORS, TaskwireError

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 20
"""Errors listed in one answer: a batch may have thousands."""

_MAX_TEXT: Final = 300
_CODES: Final[Mapping[int, str]] = {
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "MESSAGE_TOO_LARGE",
    429: "RATE_LIMITED",
    503: "UNAVAILABLE",
}
"""Codes for what the framework refuses; other statuses are INVALID_REQUEST below 500 and INTERNAL_ERROR from there."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def add_problem_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error with a problem; an unexpected one tells nothing of its inside."""
    app.add_exception_handler(TaskwireError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(_LastResort)


def problem(
    error: TaskwireError,
    request: Request,
    *,
    status: int | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer for an error: ``{type, title, status, detail, code, retryable, details?, errors?}``.

    ``status`` replaces the one of the error table. Sets Retry-After (whole seconds) and WWW-Authenticate (RFC 6750).
    """
    status = status or error.kind.status
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": _text(error.message, 2000),
        "code": error.code,
        "retryable": error.retryable,
    }
    if error.details:
        body["details"] = error.details
    if errors:
        body["errors"] = errors
    sent = dict(headers or {})
    if error.retry_after is not None:
        sent["Retry-After"] = str(math.ceil(error.retry_after))
    if status == HTTPStatus.UNAUTHORIZED:
        # Which error it is, the header may tell only to those who sent a token (RFC 6750, section 3.1).
        presented = "authorization" in request.headers and error.code != "INVALID_CREDENTIALS"
        sent["WWW-Authenticate"] = 'Bearer error="invalid_token"' if presented else "Bearer"
    return Response(orjson.dumps(body), status, headers=sent, media_type=MEDIA_TYPE)


def readable_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What Pydantic found, as ``{path, message}`` with paths such as ``body.reports[3].progress``; the first few."""
    found: list[dict[str, str]] = []
    for error in errors:
        if len(found) == MAX_ERRORS:
            break
        location, message = tuple(error["loc"]), str(error["msg"])
        if error["type"] == "json_invalid":
            location, message = location[:1], "wanted JSON"
        elif error["type"] == "value_error":
            message = message.removeprefix("Value error, ")
        path = ""
        for part in location:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        found.append({"path": _text(path), "message": _text(message)})
    return found


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, TaskwireError)
    return problem(error, request)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = readable_errors(error.errors())
    detail = "; ".join(f"`{entry['path']}`: {entry['message']}" for entry in errors[:3])
    return problem(TaskwireError("INVALID_REQUEST", detail or None), request, errors=errors)


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, TaskwireError):  # raised while the body was read, and wrapped by FastAPI
        return problem(error.__cause__, request)
    status = error.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return Response(status_code=status, headers=error.headers)
    ours = status < HTTPStatus.INTERNAL_SERVER_ERROR
    code = _CODES.get(status, "INVALID_REQUEST" if ours else "INTERNAL_ERROR")
    # A detail of its own is worth more than the phrase of the status, which the title gives already.
    detail = error.detail if ours and error.detail != _title(status) else ERRORS[code].text
    return problem(TaskwireError(code, str(detail)), request, status=status, headers=error.headers)


class _LastResort:
    """Answers what no handler knows with INTERNAL_ERROR, and writes it to the log once, with the traceback."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is left to answer to
        except Exception as error:
            # Raised before the routes were reached, e.g. by a limit on the body.
            known = error if isinstance(error, TaskwireError) else TaskwireError("INTERNAL_ERROR")
            if known is not error:
                log.exception("request.failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # half an answer is out: the connection must be cut, or it would pass for a whole one
            await problem(known, Request(scope))(scope, receive, send)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _text(text: str, limit: int = _MAX_TEXT) -> str:
    """Text that may stem from the request, fit to be encoded, and not longer than is useful."""
    text = text if len(text) <= limit else text[:limit] + "…"
    return text.encode("utf-8", "replace").decode()
