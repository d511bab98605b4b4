"""What a connected client may do, whichever contract it speaks: login, subscriptions, refresh, and the limits on them.

Messages of one connection are handled in order. A task runs only while there are messages to handle.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from taskwire.core import errors
from taskwire.core.errors import InvalidRequest, NotFound, TaskwireError
from taskwire.core.events import Urgency, task_channel, team_channel, user_channel
from taskwire.core.principals import Principal
from taskwire.hub.outlet import Batcher, Outlet
from taskwire.hub.ports import Framing
from taskwire.logs import bind_connection
from taskwire.server.context import Line, SessionContext
from taskwire.services.throttle import TokenBucket
from taskwire.wire.commands import Authenticate, BadMessage, Ping, Refresh, Request, Subscribe, Unsubscribe
from taskwire.wire.dialect import Dialect

log = structlog.get_logger(__name__)

RECHECK_RETRY: Final = 5.0
"""Seconds until rights that could not be read are asked for again."""


class ClientSession:
    """One connected client, from the handshake to the close."""

    __slots__ = (
        "_authenticating", "_bucket", "_children", "_closed", "_context", "_expired", "_inbox", "_line", "_reading",
        "_refused", "_stale", "_worker", "dialect", "framing", "id", "outlet", "principal",
    )  # fmt: skip

    def __init__(
        self, context: SessionContext, line: Line, dialect: Dialect, outlet: Outlet, framing: Framing, id: str
    ) -> None:
        settings = context.settings
        self._context = context
        self._line = line
        self.dialect = dialect
        self.outlet = outlet
        self.framing = framing
        self.id = id
        self.principal: Principal | None = None
        self._bucket = TokenBucket(settings.ws_message_rate, settings.ws_message_burst)
        self._inbox: deque[Request | BadMessage] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._children: set[asyncio.Task[None]] | None = None
        self._authenticating = False
        self._expired = False
        self._closed = False
        self._reading = True
        self._refused = 0
        self._stale = False  # whether the principal's rights may have changed since it was made
        context.sweep.set_deadline(line, settings.ws_auth_timeout_ms / 1000)

    # Incoming

    def receive_text(self, text: str) -> None:
        """Take a text message."""
        if not self._admit():
            return
        try:
            item: Request | BadMessage = self.dialect.decode(text)
        except BadMessage as bad:
            item = bad
        except Exception:
            log.exception("session.decode_failed", connectionId=self.id)
            item = BadMessage(TaskwireError("INTERNAL_ERROR"))
        self._put(item)

    def receive_binary(self) -> None:
        """Take a binary message, which no text contract has a use for."""
        if self._admit():
            self._put(
                BadMessage(InvalidRequest("wanted a text message, but got binary", code="INVALID_MESSAGE"))
            )

    def receive_oversized(self) -> None:
        """Take note of a message over ``ws_max_message``."""
        if self._admit():
            limit = self._context.settings.ws_max_message
            self._put(
                BadMessage(TaskwireError("MESSAGE_TOO_LARGE", f"Wanted a message of at most {limit} bytes."))
            )

    def _admit(self) -> bool:
        """Whether the rate allows one more message; if not it is refused, and a flood ends the connection."""
        if self._closed:
            return False
        if self._bucket.take(self._context.sweep.now):
            self._refused = 0
            return True
        self._refused += 1
        self._context.connections.refused["rate"] += 1
        if self._refused > self._context.settings.ws_flood_limit:
            self._line.close(errors.FLOOD)
        else:
            self._send(self.dialect.error(TaskwireError("RATE_LIMITED", retry_after=1.0)))
        return False

    def _put(self, item: Request | BadMessage) -> None:
        if self._worker is None:
            # The quick answers need no task while nothing is before them.
            if isinstance(item, BadMessage):
                self._send(self.dialect.error(item.error, item.id))
                return
            if type(item.command) is Ping:
                self._send(self.dialect.pong(item))
                return
        inbox = self._set_to_work()
        inbox.append(item)
        if self._reading and len(inbox) >= self._context.settings.ws_max_queued:
            self._reading = False
            self._line.pause_reading()

    def _set_to_work(self) -> deque[Request | BadMessage]:
        """See that a task is there to handle messages; gives the inbox that it takes them from."""
        if self._inbox is None:
            self._inbox = deque()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(self._inbox))
        return self._inbox

    async def _work(self, inbox: deque[Request | BadMessage]) -> None:
        bind_connection(self.id)
        try:
            while (inbox or self._stale) and not self._closed:
                if self._stale:
                    await self._recheck()
                    continue
                item = inbox.popleft()
                if isinstance(item, BadMessage):
                    self._send(self.dialect.error(item.error, item.id))
                else:
                    await self._handle(item)
        finally:
            self._worker = None
            self._inbox = None
            if not self._reading and not self._closed:
                self._reading = True
                self._line.resume_reading()

    async def _handle(self, request: Request) -> None:
        try:
            command = request.command
            if isinstance(command, Ping):
                self._send(self.dialect.pong(request))
            elif isinstance(command, Authenticate):
                await self._authenticate(request, command)
            elif (principal := self.principal) is None:
                self._context.connections.refused["unauthorized"] += 1
                raise TaskwireError("UNAUTHORIZED", "Send `auth` with a valid token first.")
            elif self._expired:
                raise TaskwireError("TOKEN_EXPIRED")
            elif isinstance(command, Subscribe):
                self._check_count(command.task_ids)
                for task_id in command.task_ids:
                    await self._subscribe(request, principal, task_id)
            elif isinstance(command, Unsubscribe):
                for task_id in command.task_ids:
                    self._unsubscribe(request, task_id)
            elif isinstance(command, Refresh):
                self._check_count(command.task_ids)
                self._refresh(request, principal, command.task_ids)
        except TaskwireError as error:
            self._send(self.dialect.error(error, request.id))
        except Exception:
            log.exception("session.failed", command=type(request.command).__name__)
            self._send(self.dialect.error(TaskwireError("INTERNAL_ERROR"), request.id))

    def _check_count(self, ids: tuple[str, ...]) -> None:
        limit = self._context.settings.ws_max_ids
        if len(ids) > limit:
            message = f"wanted at most {limit} ids in one message, but got {len(ids)}"
            raise InvalidRequest(message, code="INVALID_MESSAGE")

    def _send(self, message: bytes) -> None:
        if not self._closed:
            self.outlet.send(self.framing(message))

    # Login

    async def _authenticate(self, request: Request, command: Authenticate) -> None:
        self._authenticating = True
        try:
            principal = await self._context.accounts.authenticate(command.token)
        except TaskwireError as error:
            if error.code == "UNAVAILABLE":
                raise  # not the token's fault; the client may try again on this connection
            # The contract has one code for every bad token; the details tell a client that it should get a fresh one.
            self._refuse_login(request, error.message, {"reason": error.code})
            return
        finally:
            self._authenticating = False
        if "read" not in principal.scopes:
            self._refuse_login(request, "This API key may not read.")
        elif self.principal is not None and principal.user_id != self.principal.user_id:
            self._refuse_login(
                request, "The token belongs to another user; open a connection of its own for it."
            )
        elif self.principal is None and self._context.connections.user_full(principal.user_id):
            self._context.connections.refused["connections_per_user"] += 1
            self._send(self.dialect.error(TaskwireError("TOO_MANY_CONNECTIONS"), request.id))
            self._line.close(errors.TOO_MANY_CONNECTIONS)
        else:
            await self._log_in(request, principal, batch=command.batch)

    def _refuse_login(self, request: Request, message: str, details: Mapping[str, Any] | None = None) -> None:
        self._context.connections.refused["login"] += 1
        self._send(self.dialect.error(TaskwireError("UNAUTHORIZED", message, details=details), request.id))
        self._line.close(errors.POLICY)

    async def _log_in(self, request: Request, principal: Principal, *, batch: bool) -> None:
        if batch and self.outlet.batcher is None:
            framing, dialect = self.framing, self.dialect
            clock = self._context.batch_clock
            self.outlet.batcher = Batcher(self.outlet, lambda pieces: framing(dialect.batch(pieces)), clock)
        await self._join_rooms(principal, lambda: self._welcome(request, principal))

    def _welcome(self, request: Request, principal: Principal) -> None:
        """The login holds from here on: say so, before anything that comes of it."""
        context = self._context
        if self.principal is None:
            context.connections.log_in(principal.user_id, self)
        self.principal = principal
        # They may have changed since they were read, before this connection was among those that are told.
        self._stale = True
        self._expired = False
        if principal.expires_at is None:
            context.sweep.clear_deadline(self._line)
        else:
            left = (principal.expires_at - context.clock()) / 1000
            context.sweep.set_deadline(self._line, max(0.0, left))
        self._send(self.dialect.authenticated(request, principal, self.id))

    async def _join_rooms(self, principal: Principal, before: Callable[[], None]) -> None:
        """Be in exactly the rooms of ``principal``. ``before`` is called in the same step, before news can come."""
        hub = self._context.hub
        subs, batched = self.outlet.subs, self.outlet.batcher is not None
        wanted = {user_channel(principal.user_id), *(team_channel(team) for team in principal.teams)}
        # First, so that rooms are left even if others cannot be opened now.
        for name, sub in list(subs.items()):
            if name not in wanted and not name.startswith("task:"):
                sub.leave()
        opened = []
        try:
            for name in sorted(wanted):
                if name not in subs or subs[name].batched != batched:
                    opened.append(await hub.open_room(name))  # noqa: PERF401  those opened are unpinned if one fails
            if self._closed:
                return
            before()
            view = self.dialect.batch_view if batched else self.dialect.room_view
            framing = _as_it_is if batched else self.framing
            for channel in opened:
                tag = None if channel.name.startswith("user:") else principal.user_id
                channel.join(self.outlet, view, framing, tag=tag, batched=batched)
        finally:
            for channel in opened:
                hub.unpin(channel)

    def recheck(self) -> None:
        """The user's rights have changed: load them anew, between two messages, and drop what is no longer theirs."""
        if not self._closed and self.principal is not None:
            self._stale = True
            self._set_to_work()

    async def _recheck(self) -> None:
        self._stale = False
        if self.principal is None:
            return
        try:
            fresh = self.principal = await self._context.accounts.refresh_principal(self.principal)
            self._leave_foreign_tasks(fresh)
            await self._join_rooms(fresh, lambda: None)
        except TaskwireError as error:
            if error.code == "UNAVAILABLE":
                asyncio.get_running_loop().call_later(RECHECK_RETRY, self.recheck)
            elif error.code != "TOKEN_EXPIRED":  # which has its own time of grace
                self._send(self.dialect.error(TaskwireError("UNAUTHORIZED", error.message)))
                self._line.close(errors.REVOKED)
        except Exception:
            log.exception("session.recheck_failed")

    def _leave_foreign_tasks(self, fresh: Principal) -> None:
        for name, sub in list(self.outlet.subs.items()):
            state = sub.channel.state
            if state is not None and not fresh.may_see(state.entity.spec.owner_id, state.entity.spec.team_id):
                sub.leave()
                self._send(self.dialect.error(NotFound("TASK_NOT_FOUND"), task_id=name.removeprefix("task:")))

    # Subscriptions

    async def _subscribe(self, request: Request, principal: Principal, task_id: str) -> None:
        """Answer, send the present state, and every later one: in one step, so nothing falls between."""
        name = task_channel(task_id)
        settings = self._context.settings
        if name not in self.outlet.subs and len(self.outlet.subs) >= settings.ws_max_subscriptions:
            error = TaskwireError(
                "TOO_MANY_SUBSCRIPTIONS", f"Wanted at most {settings.ws_max_subscriptions}."
            )
            self._context.connections.refused["subscriptions"] += 1
            self._send(self.dialect.error(error, request.id, task_id))
            return
        hub = self._context.hub
        channel = await hub.open_topic(name)
        try:
            state = None if channel is None else channel.state
            if channel is None or state is None or not _may_see(principal, state.entity):
                self._send(self.dialect.error(NotFound("TASK_NOT_FOUND"), request.id, task_id))
                return
            if self._closed:
                return
            self._send(self.dialect.subscribed(request, task_id))
            snapshot = self.dialect.task_view.encode(state)
            if snapshot is not None:
                self._send(snapshot)
            if state.urgency is not Urgency.FINAL and not self._closed:
                channel.join(self.outlet, self.dialect.task_view, self.framing)
        finally:
            if channel is not None:
                hub.unpin(channel)

    def _unsubscribe(self, request: Request, task_id: str) -> None:
        sub = self.outlet.subs.get(task_channel(task_id))
        if sub is not None:
            sub.leave()
        self._send(self.dialect.unsubscribed(request, task_id))

    # Refresh

    def _refresh(self, request: Request, principal: Principal, task_ids: tuple[str, ...]) -> None:
        """Look tasks up side by side, and answer each as it is known, without holding later messages up."""
        under_way = len(self._children or ())
        if under_way + len(task_ids) > 2 * self._context.settings.ws_max_ids:
            raise TaskwireError("RATE_LIMITED", "Too many status requests are under way.", retry_after=1.0)
        for task_id in task_ids:
            self._spawn(self._refresh_one(request, principal, task_id))

    async def _refresh_one(self, request: Request, principal: Principal, task_id: str) -> None:
        try:
            event, stale = await self._context.tasks.refresh(principal, task_id)
            self._send(self.dialect.state(request, event, stale))
        except TaskwireError as error:
            self._send(self.dialect.error(error, request.id, task_id))
        except Exception:
            log.exception("session.refresh_failed", taskId=task_id)
            self._send(self.dialect.error(TaskwireError("INTERNAL_ERROR"), request.id, task_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._children is None:
            self._children = set()
        task = asyncio.get_running_loop().create_task(work)
        self._children.add(task)
        task.add_done_callback(self._children.discard)

    # Time, and the end

    def on_deadline(self) -> None:
        """No login in time, or the token has expired, or the grace after that is over."""
        context = self._context
        if self._authenticating:
            context.sweep.set_deadline(self._line, 1.0)
        elif self.principal is None:
            context.connections.refused["auth_timeout"] += 1
            self._send(self.dialect.error(TaskwireError("AUTH_TIMEOUT")))
            self._line.close(errors.POLICY, "no login in time")
        elif not self._expired:
            self._expired = True
            self._send(self.dialect.error(TaskwireError("TOKEN_EXPIRED")))
            context.sweep.set_deadline(self._line, context.settings.ws_token_grace)
        else:
            context.connections.refused["token_expired"] += 1
            self._line.close(errors.POLICY, "token expired")

    def heartbeat(self, frames: dict[object, bytes], started_at: float) -> None:
        """Send the heartbeat, unless the connection has enough to do. One frame serves all of a dialect and framing."""
        if self.principal is None or self._closed or self.outlet.congested:
            return
        key = (self.dialect, self.framing)
        frame = frames.get(key)
        if frame is None:
            uptime = time.monotonic() - started_at
            frame = frames[key] = self.framing(self.dialect.heartbeat(self._context.connections.open, uptime))
        self.outlet.write(frame)

    def goodbye(self, retry_after: float) -> None:
        """The server is going down: say when to come back."""
        self._send(self.dialect.error(TaskwireError("SERVER_SHUTDOWN", retry_after=round(retry_after, 1))))

    def close(self) -> None:
        """Forget everything. Called by the line, once."""
        if self._closed:
            return
        self._closed = True
        self.outlet.close()
        if self.principal is not None:
            self._context.connections.log_out(self.principal.user_id, self)
        current = asyncio.current_task()
        for task in [*(self._children or ()), *([self._worker] if self._worker is not None else ())]:
            if task is not current:
                task.cancel()


def _as_it_is(message: bytes) -> bytes:
    """The framing of pieces of a batch: they are framed as a whole."""
    return message


def _may_see(principal: Principal, entity: Any) -> bool:
    return principal.may_see(entity.spec.owner_id, entity.spec.team_id)
