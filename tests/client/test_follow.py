"""The follower gives every task's states to their end, across whatever happens to the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import anyio
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from taskwire.client.backoff import Backoff
from taskwire.client.errors import BadAnswer, ClientError, LoginRefused, Refused, Unreachable
from taskwire.client.follow import Follower, Link, Update
from taskwire.core.tasks import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED
from tests.support.server import ServerProcess
from tests.support.timing import eventually_async, scaled

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
Script = Callable[["Peer"], Awaitable[None]]


def progress(revision: int, value: float = 0, *, status: str = "PROCESSING", task: str = "t1") -> Message:
    payload = {
        "videoId": task, "status": status, "progress": value, "currentStep": 0, "totalSteps": 0, "message": "",
        "estimatedTimeRemaining": None, "revision": revision, "attempt": 1,
    }  # fmt: skip
    return {"type": "taskProgress", "payload": payload}


def completed(revision: int, task: str = "t1") -> Message:
    payload = {
        "videoId": task, "status": "completed", "progress": 100, "result": {"videoUrl": "/v.mp4"},
        "metrics": {"totalTime": 1}, "revision": revision, "attempt": 1,
    }  # fmt: skip
    return {"type": "taskCompleted", "payload": payload}


def failed(revision: int, code: str = "BROKEN", task: str = "t1") -> Message:
    error = {"code": code, "message": "it broke", "details": None, "retryable": False}
    return {
        "type": "taskFailed",
        "payload": {"videoId": task, "status": "failed", "error": error, "revision": revision},
    }


def refusal(code: str, *, retryable: bool = False, **details: Any) -> Message:
    payload = {"code": code, "message": f"said {code}", "retryable": retryable, "details": details}
    return {"type": "error", "payload": payload}


class Peer:
    """One connection as the scripted server sees it."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        self.tokens: list[str] = []
        self.subscribed: list[str] = []

    async def send(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send(json.dumps(message))

    async def take(self) -> Message:
        """The next message, answered as the contract says."""
        message: Message = json.loads(await self.socket.recv())
        payload = message["payload"]
        if message["type"] == "auth":
            self.tokens.append(payload["token"])
            await self.send({"type": "authSuccess", "id": message["id"], "payload": {"userId": "u"}})
        elif message["type"] == "subscribe_task":
            self.subscribed.append(payload["videoId"])
            answer = {"videoId": payload["videoId"], "subscribed": True}
            await self.send({"type": "subscribeSuccess", "id": message["id"], "payload": answer})
        return message

    async def welcome(self, subscriptions: int = 1) -> None:
        for _ in range(1 + subscriptions):
            await self.take()


class Scripted:
    """A server that follows a script per connection; the last script is for all later ones."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.peers: list[Peer] = []
        self.refuse: list[tuple[HTTPStatus, dict[str, str]]] = []
        self.server: Server

    async def handle(self, socket: ServerConnection) -> None:
        peer = Peer(socket, len(self.peers))
        self.peers.append(peer)
        with suppress(ConnectionClosed):
            await self.scripts[min(peer.number, len(self.scripts) - 1)](peer)

    def process_request(self, socket: ServerConnection, _request: Request) -> Response | None:
        if not self.refuse:
            return None
        status, headers = self.refuse.pop(0)
        answer = socket.respond(status, "refused")
        answer.headers.update(headers)
        return answer

    @property
    def url(self) -> str:
        port = next(iter(self.server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Scripted]:
    double = Scripted(*scripts)
    async with serve(double.handle, "127.0.0.1", 0, process_request=double.process_request) as server:
        double.server = server
        yield double


class Waits:
    """Takes the place of chance: no wait, but what it would have been is noted."""

    def __init__(self) -> None:
        self.ceilings: list[float] = []

    def __call__(self, low: float, high: float) -> float:
        self.ceilings.append(high)
        return low


async def collect(url: str, *task_ids: str, **options: Any) -> list[Update]:
    options.setdefault("backoff", Backoff(draw=Waits()))
    with anyio.fail_after(scaled(20)):
        return [
            update
            async for update in Follower(url, options.pop("token", "jwt"), task_ids or ["t1"], **options)
        ]


async def test_from_the_snapshot_to_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(
            progress(1, status="QUEUED"),
            {"type": "heartbeat", "payload": {"connectedClients": 1, "uptime": 5}},
            progress(2, 10),
            {"type": "taskUpdated", "payload": {"videoId": "t1", "status": "PROCESSING"}},
            progress(3, 50.5),
            completed(4),
        )
        await peer.socket.wait_closed()

    async with scripted(script) as server:
        found = await collect(server.url)
    assert [(u.status, u.progress, u.revision, u.finished) for u in found] == [
        (QUEUED, 0, 1, False), (PROCESSING, 10, 2, False), (PROCESSING, 50.5, 3, False), (COMPLETED, 100, 4, True),
    ]  # fmt: skip
    assert found[-1].result == {"videoUrl": "/v.mp4"}
    assert server.peers[0].tokens == ["jwt"]
    assert server.peers[0].subscribed == ["t1"]


@pytest.mark.parametrize(("code", "status"), [("BROKEN", FAILED), ("CANCELLED", CANCELLED)])
async def test_failed_and_cancelled(code: str, status: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(failed(1, code))

    async with scripted(script) as server:
        (update,) = await collect(server.url)
    assert (update.status, update.message, update.finished) == (status, "it broke", True)


async def test_a_broken_connection_is_made_again() -> None:
    """Cut off in the middle, told the same again, and once something older: each news is given once."""

    async def first(peer: Peer) -> None:
        await peer.welcome(2)
        await peer.send(progress(3, 30), progress(1, 10, task="t2"))
        peer.socket.transport.abort()

    async def second(peer: Peer) -> None:
        await peer.welcome(2)
        await peer.send(progress(3, 30), progress(2, 20), failed(2, task="t2"), failed(2, task="t2"))
        await peer.socket.close(1012, "server restarting")

    async def third(peer: Peer) -> None:
        await peer.welcome(1)
        await peer.send(completed(9))

    links: list[Link] = []
    waits = Waits()
    async with scripted(first, second, third) as server:
        found = await collect(
            server.url, "t1", "t2", on_link=lambda link, *_: links.append(link), backoff=Backoff(draw=waits)
        )
    assert [(u.task_id, u.revision) for u in found] == [("t1", 3), ("t2", 1), ("t2", 2), ("t1", 9)]
    assert [peer.subscribed for peer in server.peers] == [["t1", "t2"], ["t1", "t2"], ["t1"]]
    assert links == [Link.CONNECTING, Link.CONNECTED, Link.WAITING] * 2 + [Link.CONNECTING, Link.CONNECTED]
    assert waits.ceilings == [0.5, 0.5], "each subscription that worked begins the waits anew"


async def test_nobody_there_then_somebody() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    async with scripted(script) as server:
        url = server.url
    waits = Waits()
    tries = asyncio.Event()

    def on_link(link: Link, reason: str, wait: float) -> None:
        if link is Link.WAITING and len(waits.ceilings) == 4:
            assert reason
            tries.set()

    port = int(url.rpartition(":")[2])
    following = asyncio.create_task(collect(url, on_link=on_link, backoff=Backoff(draw=waits, cap=1.5)))
    await asyncio.wait_for(tries.wait(), scaled(20))
    double = Scripted(script)
    async with serve(double.handle, "127.0.0.1", port):
        found = await following
    assert [update.status for update in found] == [COMPLETED]
    assert waits.ceilings[:4] == [0.5, 1.0, 1.5, 1.5], "doubles up to the cap"


async def test_the_server_says_when_to_come_back() -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(refusal("SERVER_SHUTDOWN", retryable=True, retryAfter=0.125))
        await peer.socket.close(1012, "server restarting")

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    waited: list[float] = []

    def on_link(link: Link, reason: str, wait: float) -> None:
        if link is Link.WAITING:
            waited.append(wait)

    async with scripted(first, second) as server:
        await collect(server.url, on_link=on_link)
    assert waited == [0.125]


async def test_an_error_that_may_pass_is_waited_for() -> None:
    async def first(peer: Peer) -> None:
        await peer.take()
        await peer.send(refusal("UNAVAILABLE", retryable=True, retryAfter=0))
        await peer.socket.wait_closed()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    async with scripted(first, second) as server:
        assert [u.status for u in await collect(server.url)] == [COMPLETED]


async def test_a_server_that_does_not_answer_is_left() -> None:
    async def first(peer: Peer) -> None:
        await peer.socket.wait_closed()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    reasons: list[str] = []
    async with scripted(first, second) as server:
        await collect(
            server.url, answer_timeout=0.05, on_link=lambda link, reason, wait: reasons.append(reason)
        )
    assert "no answer in time" in reasons


async def test_silence_after_the_answers_is_no_fault() -> None:
    """Nothing to tell for longer than the time for answers: the connection is kept."""
    quiet = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(progress(1, 1))
        await quiet.wait()
        await peer.send(completed(2))

    async with scripted(script) as server:
        seen = []
        async for update in Follower(server.url, "jwt", ["t1"], answer_timeout=0.02):
            seen.append(update)
            if not update.finished:
                asyncio.get_running_loop().call_later(0.1, quiet.set)
    assert [update.revision for update in seen] == [1, 2]
    assert len(server.peers) == 1


async def test_a_fresh_token_in_place() -> None:
    """TOKEN_EXPIRED is answered with the next token on the same connection."""

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(progress(1, 1), refusal("TOKEN_EXPIRED", retryable=True))
        await peer.take()
        await peer.send(completed(2))

    given = iter(["first", "second"])

    async def token() -> str:
        return next(given)

    async with scripted(script) as server:
        found = await collect(server.url, token=token)
    assert [update.revision for update in found] == [1, 2]
    assert server.peers[0].tokens == ["first", "second"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("UNAUTHORIZED"), LoginRefused),
        (refusal("TOKEN_EXPIRED", retryable=True), LoginRefused),
        (refusal("TASK_NOT_FOUND", videoId="t1"), Refused),
        ({"type": "taskProgress", "payload": {"videoId": "t1"}}, BadAnswer),
        ({"type": "taskProgress", "payload": {**progress(1)["payload"], "status": "DREAMING"}}, BadAnswer),
        ({"type": "taskFailed", "payload": {"videoId": "t1", "error": None, "revision": 1}}, BadAnswer),
        ({"hello": "world"}, BadAnswer),
    ],
)
async def test_what_cannot_be_mended_is_raised(answer: Message, kind: type[ClientError]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(answer)
        await peer.socket.wait_closed()

    async with scripted(script) as server:
        with pytest.raises(kind):
            await collect(server.url)
    assert len(server.peers) == 1


async def test_nonsense_is_raised() -> None:
    async def script(peer: Peer) -> None:
        await peer.socket.send("not json")
        await peer.socket.wait_closed()

    async with scripted(script) as server:
        with pytest.raises(BadAnswer, match="tasks contract"):
            await collect(server.url)


@pytest.mark.parametrize(
    ("code", "kind"), [(1008, LoginRefused), (4003, LoginRefused), (4030, Refused), (1009, Refused)]
)
async def test_close_codes_that_say_stay_away(code: int, kind: type[ClientError]) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(code, "no")

    async with scripted(script) as server:
        with pytest.raises(kind, match="closed the connection: no"):
            await collect(server.url)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4008, 4029])
async def test_close_codes_that_say_come_back(code: int) -> None:
    """Also an orderly close is no end: the task has not ended."""

    async def first(peer: Peer) -> None:
        await peer.welcome()
        await peer.socket.close(code)

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    async with scripted(first, second) as server:
        assert [u.status for u in await collect(server.url)] == [COMPLETED]


async def test_refused_handshakes() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    waited: list[float] = []

    def on_link(link: Link, reason: str, wait: float) -> None:
        if link is Link.WAITING:
            waited.append(wait)

    async with scripted(script) as server:
        server.refuse += [
            (HTTPStatus.SERVICE_UNAVAILABLE, {}),
            (HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "1"}),
        ]
        found = await collect(server.url, on_link=on_link)
        assert [update.status for update in found] == [COMPLETED]
        assert waited == [0, 1]
        server.refuse.append((HTTPStatus.NOT_FOUND, {}))
        with pytest.raises(BadAnswer, match="HTTP 404"):
            await collect(server.url)


async def test_patience_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(progress(1, 1))

    async with scripted(script) as server:
        updates = aiter(Follower(server.url, "jwt", ["t1"], patience=0.2, backoff=Backoff(base=0.05)))
        assert (await anext(updates)).revision == 1
        server.server.close()
        with pytest.raises(Unreachable, match="out of reach"):
            await anext(updates)


async def test_a_token_that_cannot_be_renewed_yet_is_waited_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(completed(1))

    tries = 0

    async def token() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unreachable("the server is away")
        return "jwt"

    async with scripted(script) as server:
        assert [u.status for u in await collect(server.url, token=token)] == [COMPLETED]
    assert tries == 3


async def test_nothing_to_follow() -> None:
    assert [update async for update in Follower("http://127.0.0.1:1", "jwt", [])] == []


async def test_leaving_early_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(progress(1, 1))
        await peer.socket.wait_closed()
        closed.set()

    async with scripted(script) as server:
        updates = aiter(Follower(server.url, "jwt", ["t1"]))
        await anext(updates)
        await updates.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(closed.wait(), scaled(10))


async def test_a_real_server_killed_in_the_middle(server: ServerProcess) -> None:
    """Progress reported before and after a crash arrives, each once and in order, and so does the end."""
    token = server.login()
    async with server.async_client(token) as client:
        body = {"prompt": "x", "provider": "external"}
        task_id = (await client.post("/api/v1/tasks", json=body)).json()["id"]

        async def report(**report: Any) -> None:
            answer = await client.post(f"/api/v1/tasks/{task_id}/reports", json=report)
            assert answer.status_code == 200, answer.text

        found: list[Update] = []

        async def follow() -> None:
            async for update in Follower(server.url, token, [task_id], backoff=Backoff(base=0.05, cap=0.2)):
                found.append(update)  # noqa: PERF401  one by one, as they come

        following = asyncio.create_task(follow())
        await eventually_async(lambda: [u.status for u in found] == [QUEUED])
        await report(progress=30)
        await eventually_async(lambda: [u.progress for u in found] == [0, 30])
        await asyncio.to_thread(server.kill9)
        await asyncio.to_thread(server.start)
        await report(progress=60, message="after the crash")
        await report(status="COMPLETED", result={"videoUrl": "https://cdn.example/v.mp4"})
        await asyncio.wait_for(following, scaled(30))
    revisions = [update.revision for update in found]
    assert revisions == sorted(set(revisions))
    assert [update.progress for update in found] in ([0, 30, 60, 100], [0, 30, 100])
    assert found[-1].finished
    assert found[-1].result is not None
    assert found[-1].result["videoUrl"] == "https://cdn.example/v.mp4"


async def test_a_real_server_refuses(server: ServerProcess) -> None:
    with pytest.raises(LoginRefused):
        await collect(server.url, "video_x", token="eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
    with pytest.raises(Refused) as refused:
        await collect(server.url, "video_x", token=server.login())
    assert refused.value.code == "TASK_NOT_FOUND"
