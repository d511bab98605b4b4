"""The REST API as Python calls; answers are the JSON objects as the server gives them."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from taskwire import __version__
from taskwire.client.address import base_url, is_local
from taskwire.client.errors import BadAnswer, LoginRefused, Refused, Unreachable

TokenSource = str | Callable[[], Awaitable[str]]
"""A token (JWT or API key), or a coroutine function that gives one that is still good."""


async def current_token(source: TokenSource) -> str:
    """The token to use now."""
    if isinstance(source, str):
        return source
    return await source()


class Rest:
    """Calls to one server. Raises the errors of ``client.errors``, never httpx's. Use as ``async with``."""

    def __init__(self, url: str, token: TokenSource | None = None, *, timeout: float = 30) -> None:
        self.url = base_url(url)
        self.token = token
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout,
            trust_env=not is_local(self.url),
            headers={"User-Agent": f"taskwire-client/{__version__}", "Accept": "application/json"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def readiness(self) -> dict[str, Any]:
        """``{status, checks?}``; ``ready`` means that the server takes work. Raises Unreachable and BadAnswer."""
        answer = await self._send("GET", "/readyz", token=None)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadAnswer(f"{self.url} is not a Taskwire server.")
        return found

    async def login(self, username: str, password: str) -> dict[str, Any]:
        """``{token, expiresAt, refreshToken, user}``."""
        return await self.call(
            "POST", "/api/v1/auth/login", {"username": username, "password": password}, token=False
        )

    async def refresh(self, refresh_token: str) -> dict[str, Any]:
        """A new pair of tokens for a refresh token, which is used up by it; shaped as the answer of ``login``."""
        return await self.call("POST", "/api/v1/auth/refresh", {"refreshToken": refresh_token}, token=False)

    async def logout(self, refresh_token: str) -> None:
        """End the login that the refresh token belongs to."""
        await self.call("POST", "/api/v1/auth/logout", {"refreshToken": refresh_token}, token=False)

    async def create_task(
        self, task: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """``task`` is ``{prompt, provider?, title?, options?, …}``; gives the new task."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return await self.call("POST", "/api/v1/tasks", dict(task), headers=headers)

    async def task(self, task_id: str) -> dict[str, Any]:
        return await self.call("GET", f"/api/v1/tasks/{_segment(task_id)}")

    async def tasks(self, **filters: Any) -> dict[str, Any]:
        """One page of the newest tasks; filters as in the API, those that are None are left out."""
        query = {name: value for name, value in filters.items() if value is not None}
        return await self.call("GET", "/api/v1/tasks", query=query)

    async def cancel(self, task_id: str) -> dict[str, Any]:
        return await self.call("POST", f"/api/v1/tasks/{_segment(task_id)}/cancel")

    async def retry(self, task_id: str) -> dict[str, Any]:
        return await self.call("POST", f"/api/v1/tasks/{_segment(task_id)}/retry")

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        token: bool = True,
    ) -> dict[str, Any]:
        """One request; gives the JSON object of the answer ({} where there is none)."""
        chosen = self.token if token else None
        answer = await self._send(method, path, token=chosen, body=body, query=query, headers=headers)
        if answer.is_success and not answer.content:
            return {}
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadAnswer(
                f"{self.url} answered {method} {path} with {answer.status_code} and no JSON object; "
                "is it a Taskwire server?"
            )
        if not answer.is_success:
            raise _refusal(answer.status_code, found)
        return found

    async def _send(
        self,
        method: str,
        path: str,
        *,
        token: TokenSource | None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {await current_token(token)}"
        try:
            return await self._http.request(method, path, json=body, params=query, headers=sent)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} did not answer in time.") from error
        except httpx.ConnectError as error:
            raise Unreachable(
                f"{self.url} cannot be reached ({_reason(error)}). Is the server running there?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"{self.url} cannot be reached: {_reason(error)}.") from error


def _segment(task_id: str) -> str:
    """An id as one segment of a path, whatever somebody typed."""
    return quote(task_id, safe="") or "%20"


def _refusal(status: int, problem: Mapping[str, Any]) -> Refused:
    """The exception for a problem+json answer."""
    code = str(problem.get("code") or f"HTTP_{status}")
    text = str(problem.get("detail") or problem.get("title") or f"The server answered {status}.")
    kind = LoginRefused if status == 401 else Refused
    return kind(
        code, text, status=status, retryable=bool(problem.get("retryable")), details=problem.get("details")
    )


def _reason(error: Exception) -> str:
    return str(error).rstrip(".").lower() or type(error).__name__
