"""docs/contracts/tasks.md: every message type is there, as in the golden examples and as a server sends it."""

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx
import pytest

from taskwire.wire.dialects.tasks import TYPES
from tests.support import markdown
from tests.support.contract import ContractClient, Message
from tests.support.golden import Golden, golden
from tests.support.server import ServerProcess

TEXT: Final = markdown.read("docs/contracts/tasks.md")
TO_SERVER: Final = markdown.section(TEXT, "Client to server")
TO_CLIENT: Final = markdown.section(TEXT, "Server to client")

OPTIONAL: Final = frozenset({"batch", "details", "extra", "id", "stale", "staleReason", "timestamp"})
"""Fields that only some messages of a type have."""


def messages(part: str) -> dict[str, Message]:
    """The example under each heading."""
    found: dict[str, Message] = {}
    for block in markdown.blocks(part, "json"):
        assert block.heading not in found, block.heading
        found[block.heading] = json.loads(block.text)
    return found


CLIENT: Final = messages(TO_SERVER)
SERVER: Final = messages(TO_CLIENT)


def test_every_type_has_its_heading_and_its_example() -> None:
    assert markdown.headings(TO_SERVER, 3) == list(CLIENT) == list(TYPES)
    sent = {example.message["type"] for example in golden("tasks") if example.sender == "server"}
    assert markdown.headings(TO_CLIENT, 3) == list(SERVER)
    assert set(SERVER) == sent
    for title, message in (CLIENT | SERVER).items():
        assert message["type"] == title


@pytest.mark.parametrize("example", golden("tasks"), ids=lambda example: example.name)
def test_golden_examples_are_as_documented(example: Golden) -> None:
    if example.refused is not None:
        return  # what is wrong with these is no part of the contract
    part, shown = (TO_SERVER, CLIENT) if example.sender == "client" else (TO_CLIENT, SERVER)
    type = example.message["type"]
    payload = example.message.get("payload", {})
    assert (
        markdown.differences(shown[type], example.message, optional=OPTIONAL | {"payload"}, exact=False) == []
    )
    assert markdown.differences(shown[type].get("payload"), payload, optional=OPTIONAL, exact=False) == []
    for name in OPTIONAL & payload.keys():
        assert name in markdown.section(part, type), f"{type}: {name} is not told of"


# Against a server

FILLED: Final = {"videoId", "videoIds", "token"}


def filled(type: str, **payload: Any) -> Message:
    """The documented message with values that are good here."""
    message: Message = json.loads(json.dumps(CLIENT[type]))
    assert payload.keys() <= FILLED | {"batch"}
    message.setdefault("payload", {}).update(payload)
    return message


class Conversation:
    """A connection on which documented messages are sent, and answers compared with the documented ones."""

    def __init__(self, client: ContractClient) -> None:
        self.client = client
        self.seen: set[str] = set()

    async def send(self, type: str, **payload: Any) -> None:
        message = filled(type, **payload)
        await self.client.send(message.pop("type"), message.pop("payload"), **message)

    async def receive(self, type: str, *, answers: str | None = None) -> Mapping[str, Any]:
        """The next message of a type; with ``answers`` it must repeat the id of that documented request."""
        while True:
            message = await self.client.receive()
            found = markdown.differences(SERVER[message["type"]], message, optional=OPTIONAL, exact=False)
            assert found == [], message
            self.seen.add(message["type"])
            if message["type"] == type and (answers is None or message.get("id") == CLIENT[answers]["id"]):
                payload: Mapping[str, Any] = message["payload"]
                return payload


def create(rest: httpx.Client) -> str:
    answer = rest.post("/api/v1/tasks", json={"prompt": "Rain", "title": "Rain", "provider": "external"})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


@pytest.mark.anyio
async def test_a_server_says_what_is_documented(start_server: Any) -> None:
    server: ServerProcess = start_server(env={"WS_HEARTBEAT_INTERVAL": "300"})
    token = server.login()
    seen: set[str] = set()
    with server.client(token) as rest:
        task, other = create(rest), create(rest)

        async with await ContractClient.open(server.ws_url()) as client:
            talk = Conversation(client)
            await talk.send("ping")
            await talk.receive("pong", answers="ping")
            await talk.send("auth", token=token)
            await talk.receive("authSuccess", answers="auth")
            await talk.send("subscribe_task", videoId=task)
            assert (await talk.receive("subscribeSuccess", answers="subscribe_task"))["videoId"] == task
            assert (await talk.receive("taskProgress"))["status"] == "QUEUED"
            await talk.send("requestTaskStatus", videoId=task)
            await talk.receive("taskUpdated", answers="requestTaskStatus")
            await talk.send("requestMultipleTaskStatus", videoIds=[task, "video_unknown"])
            await talk.receive("taskUpdated", answers="requestMultipleTaskStatus")
            error = await talk.receive("error", answers="requestMultipleTaskStatus")
            assert error == SERVER["error"]["payload"] | {"details": {"videoId": "video_unknown"}}
            await talk.send("unsubscribe_task", videoId=task)
            await talk.receive("unsubscribeSuccess", answers="unsubscribe_task")
            await talk.receive("heartbeat")
            await talk.send("subscribe_task", videoId=task)
            rest.post(
                f"/api/v1/tasks/{task}/reports", json={"status": "COMPLETED", "result": {"duration": 5}}
            )
            await talk.receive("taskCompleted")
            await talk.send("subscribe_task", videoId=other)
            await talk.receive("taskProgress")
            rest.post(f"/api/v1/tasks/{other}/cancel")
            assert (await talk.receive("taskFailed"))["error"]["code"] == "CANCELLED"
            seen |= talk.seen

        async with await ContractClient.open(server.ws_url()) as client:
            talk = Conversation(client)
            await talk.send("auth", token=token, batch=True)
            await talk.receive("authSuccess")
            news = [{"taskId": create(rest), "progress": 10}, {"taskId": create(rest), "progress": 20}]
            rest.post("/api/v1/reports", json={"reports": news})
            await talk.receive("tasksUpdated")
            seen |= talk.seen
    assert seen == set(SERVER)
