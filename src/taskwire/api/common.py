"""What all routes share: JSON models, times, who is asking, pages, and the way to the services."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Generic, TypeVar, cast

import orjson
from fastapi import Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.principals import Principal
from taskwire.services.accounts import allows
from taskwire.services.container import Services

T = TypeVar("T")
Item = TypeVar("Item")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def services(request: Request) -> Services:
    """The node's services."""
    return cast(Services, request.app.state.services)


# Times


def iso(at: int) -> str:
    """Milliseconds since 1970 as ``2026-01-31T12:00:00.000Z``."""
    return (_EPOCH + timedelta(milliseconds=at)).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_time(name: str, value: str | None) -> int | None:
    """ISO 8601 with a time zone (``Z`` or an offset) as ms since 1970. Raises InvalidRequest, calling it ``name``."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"`{name}`: wanted a time such as 2026-01-31T12:00:00.000Z") from None


Time = Annotated[
    int, PlainSerializer(iso, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""ms since 1970 inside, ISO 8601 in JSON."""


# Models


class ApiModel(BaseModel):
    """JSON in camelCase; the attributes keep Python's names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class InputModel(ApiModel):
    """What a client sends. A field we do not know is an error, so that a typo does not pass in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _storable(self) -> "InputModel":
        for name, value in self.__dict__.items():
            # Most values are nothing, numbers or ASCII text; this runs for every report of a batch.
            kind = type(value)
            if value is None or kind is int or kind is float:
                continue
            if kind is str and value.isascii() and "\0" not in value:
                continue
            if fault := unstorable(value):
                raise ValueError(f"`{to_camel(name)}`: wanted {fault}")
        return self


def examples(*found: Mapping[str, Any]) -> ConfigDict:
    """The part of a model's configuration that shows examples in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [dict(example) for example in found]})


def unstorable(value: Any) -> str | None:
    """What was wanted of the texts in a JSON value, if one of them is such as no database or UTF-8 can hold."""
    waiting = [value]
    while waiting:  # no recursion: the value may be nested as deep as its sender liked
        part = waiting.pop()
        if isinstance(part, str):
            if "\0" in part:
                return "text without NUL characters"
            if not part.isascii() and any("\ud800" <= character <= "\udfff" for character in part):
                return "valid Unicode text"
        elif isinstance(part, Mapping):
            waiting.extend(part)
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
    return None


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON-able values."""
    return Response(orjson.dumps(content), status, headers=headers, media_type="application/json")


# Pages


class Page(ApiModel, Generic[Item]):
    """One page of a list; ``nextCursor`` leads to the next, null on the last one."""

    items: list[Item]
    next_cursor: str | None = Field(None, description="Give it as `cursor` to get the next page.")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is wanted: up to ``limit`` items from behind ``cursor``."""

    cursor: str | None
    limit: int

    @property
    def fetch(self) -> int:
        """How many to ask the service for: one more than is shown tells whether there is a next page."""
        return self.limit + 1

    def cut(self, found: Sequence[T], cursor_of: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
        """The items of the page, and the cursor of the next one."""
        shown = found[: self.limit]
        return shown, cursor_of(shown[-1]) if len(found) > self.limit else None


async def page_request(
    request: Request,
    cursor: Annotated[str | None, Query(description="`nextCursor` of the page before.")] = None,
    limit: Annotated[
        int, Query(ge=1, description="Items on the page; the server has a limit of its own.")
    ] = 50,
) -> PageRequest:
    """The page that the query asks for. A ``limit`` above the setting ``max_page`` counts as that."""
    return PageRequest(cursor, min(limit, services(request).settings.max_page))


PageDep = Annotated[PageRequest, Depends(page_request)]


# Who is asking

bearer = HTTPBearer(auto_error=False, description="The `token` of a login, or an API key.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def current_principal(request: Request, credentials: Credentials) -> Principal:
    """Whose token the request carries. Raises UNAUTHORIZED or TOKEN_EXPIRED."""
    return await _authenticated(request, "" if credentials is None else credentials.credentials)


async def _authenticated(request: Request, token: str) -> Principal:
    if not token:
        raise TaskwireError(
            "UNAUTHORIZED", "A valid token is required: `Authorization: Bearer <token or API key>`."
        )
    return await services(request).accounts.authenticate(token)


async def caller(request: Request, scope: str) -> Principal:
    """``require`` for the routes that producers call all the time: without the dependencies' machinery, which costs
    more than the rest of such a request."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    principal = await _authenticated(request, token.strip() if kind.lower() == "bearer" else "")
    _check_scope(principal, scope)
    return principal


PrincipalDep = Annotated[Principal, Depends(current_principal)]


def _check_scope(principal: Principal, scope: str) -> None:
    if not allows(principal, scope):
        raise TaskwireError("FORBIDDEN", f"This API key lacks the scope `{scope}`.")


def require(scope: str, *, admin: bool = False) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the principal, if the token covers ``scope`` (and is an administrator's), else FORBIDDEN."""

    # FastAPI runs plain functions in a thread, which would cost more than the rest of the request.
    async def check(principal: PrincipalDep) -> Principal:
        _check_scope(principal, scope)
        if admin and not principal.is_admin:
            raise TaskwireError("FORBIDDEN", "Only administrators may do this.")
        return principal

    return check


Reader = Annotated[Principal, Depends(require("read"))]
WriterPrincipal = Annotated[Principal, Depends(require("write"))]
AdminReader = Annotated[Principal, Depends(require("read", admin=True))]
AdminWriter = Annotated[Principal, Depends(require("write", admin=True))]
