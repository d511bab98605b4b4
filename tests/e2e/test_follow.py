"""A generation followed live to its end over ``/ws``, by clients written from the contract alone."""

import io
import sys
from typing import Any

import anyio
import av
import httpx
import pytest
import websockets
from av.container import InputContainer

from tests.support.contract import FINAL, ContractClient, check_history
from tests.support.server import ServerProcess
from tests.support.timing import scaled

pytestmark = pytest.mark.anyio

SMALL = {"size": "320x180", "seconds": 1, "fps": 24}


def create(server: ServerProcess, token: str, **body: Any) -> str:
    with server.client(token) as rest:
        answer = rest.post("/api/v1/tasks", json={"prompt": "A lighthouse at dusk", **body})
    assert answer.status_code == 201, answer.text
    task_id: str = answer.json()["id"]
    return task_id


def report(server: ServerProcess, token: str, task_id: str, **body: Any) -> dict[str, Any]:
    with server.client(token) as rest:
        answer = rest.post(f"/api/v1/tasks/{task_id}/reports", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_render_is_followed_from_queued_to_a_playable_file(server: ServerProcess) -> None:
    token = server.login()
    async with await ContractClient.open(server.ws_url()) as client:
        # As the front end does it: subscribe 100 ms after `auth`, without waiting for its answer.
        task_id = create(server, token, options=SMALL)
        await client.send("auth", {"token": token})
        await anyio.sleep(0.1)
        await client.follow(task_id)
        end = await client.until(*FINAL)

    kinds = [message["type"] for message in client.messages]
    assert kinds.index("authSuccess") < kinds.index("subscribeSuccess") < kinds.index("taskProgress")
    check_history(client.of(task_id))
    assert end["type"] == "taskCompleted", end
    payload = end["payload"]
    assert payload["status"] == "completed"
    assert payload["progress"] == 100
    result = payload["result"]
    assert result["resolution"] == "320x180"
    assert set(payload["metrics"]) == {"totalTime", "queueTime", "processTime"}
    async with httpx.AsyncClient(trust_env=False) as web:
        video = await web.get(result["videoUrl"])
        part = await web.get(result["videoUrl"], headers={"Range": "bytes=0-99"})
        thumbnail = await web.get(result["thumbnailUrl"])
    assert len(video.content) == result["fileSize"]
    assert part.status_code == 206
    assert part.content == video.content[:100]
    assert video.headers["content-type"] == "video/mp4"
    assert video.headers["x-content-type-options"] == "nosniff"
    assert thumbnail.content.startswith(b"\xff\xd8")
    with av.open(io.BytesIO(video.content), "r") as container:
        assert isinstance(container, InputContainer)
        frames = sum(1 for _ in container.decode(video=0))
        assert frames == 24
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(result["duration"], abs=0.05)


async def test_early_late_and_returning_watchers_each_get_snapshot_and_one_end(server: ServerProcess) -> None:
    token = server.login()
    task_id = create(server, token, provider="external")
    async with await ContractClient.open(server.ws_url()) as early:
        await early.log_in(token)
        await early.follow(task_id)
        await early.until("taskProgress")
        report(server, token, task_id, progress=30, message="a third")

        async with await ContractClient.open(server.ws_url()) as late:
            await late.log_in(token)
            await late.follow(task_id)
            snapshot = await late.until("taskProgress")
            assert snapshot["payload"]["progress"] == 30
            assert snapshot["payload"]["message"] == "a third"
            returning = await ContractClient.open(server.ws_url())
            await returning.log_in(token)
            await returning.follow(task_id)
            await returning.until("taskProgress")
            returning.socket.transport.abort()  # cut, without a word
            report(server, token, task_id, progress=60)
            report(
                server, token, task_id, status="COMPLETED", result={"videoUrl": "https://cdn.example/v.mp4"}
            )
            for client in (early, late):
                end = await client.until(*FINAL)
                assert end["payload"]["result"]["videoUrl"] == "https://cdn.example/v.mp4"
                check_history(client.of(task_id))

    # Back after the end, and one who comes only now: the final message is the present state, once.
    for _ in range(2):
        async with await ContractClient.open(server.ws_url()) as after:
            await after.log_in(token)
            await after.follow(task_id)
            assert (await after.until("taskProgress", *FINAL))["type"] == "taskCompleted"
            await after.send("ping", id="last")
            assert (await after.receive())["id"] == "last", (
                "something came between the end and the next answer"
            )
            check_history(after.of(task_id))


async def test_the_list_view_hears_of_every_change_without_subscribing(server: ServerProcess) -> None:
    token = server.login()
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(token)
        task_id = create(server, token, provider="external", title="List me")
        created = await client.until("taskUpdated")
        assert created["payload"]["status"] == "QUEUED"
        assert created["payload"]["title"] == "List me"
        report(server, token, task_id, progress=10)
        report(server, token, task_id, progress=10)  # nothing new: nothing is sent
        report(server, token, task_id, status="FAILED", error={"code": "NSFW", "message": "refused"})
        failed = await client.until("taskUpdated")
        while failed["payload"]["status"] != "FAILED":
            failed = await client.until("taskUpdated")
        assert failed["payload"]["error"]["code"] == "NSFW"
    assert [p["status"] for p in client.of(task_id, "taskUpdated")] == ["QUEUED", "PROCESSING", "FAILED"]


async def test_a_batching_client_gets_pending_updates_as_one_message(server: ServerProcess) -> None:
    token = server.login()
    tasks = [create(server, token, provider="external") for _ in range(20)]
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(token, batch=True)
        with server.client(token) as rest:
            for progress in (10, 20):
                body = {"reports": [{"taskId": task_id, "progress": progress} for task_id in tasks]}
                assert rest.post("/api/v1/reports", json=body).status_code == 200
        newest: dict[str, Any] = {}
        while len(newest) < len(tasks) or min(newest.values()) < 20:
            message = await client.until("tasksUpdated", "taskUpdated")
            updates = message["payload"].get("updates", [message["payload"]])
            newest |= {update["videoId"]: update["progress"] for update in updates}
    batches = [m for m in client.messages if m["type"] == "tasksUpdated"]
    assert batches
    assert len(client.messages) < 2 * len(tasks)


async def test_a_token_can_be_renewed_in_place_without_losing_anything(start_server: Any) -> None:
    server: ServerProcess = start_server(
        env={"TASKWIRE_TOKEN_LIFETIME": "2", "TASKWIRE_WS_TOKEN_GRACE": "20"}
    )
    token = server.login()
    task_id = create(server, token, provider="external")
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(token)
        await client.follow(task_id)
        error = await client.until("error", timeout=15)
        assert error["payload"]["code"] == "TOKEN_EXPIRED"
        await client.follow(task_id)
        assert (await client.until("error"))["payload"]["code"] == "TOKEN_EXPIRED", (
            "expired means no new requests"
        )
        fresh = server.login()
        report(server, fresh, task_id, progress=50)
        assert (await client.until("taskProgress"))["payload"]["progress"] == 50, (
            "deliveries go on during the grace"
        )
        await client.log_in(fresh)
        report(server, fresh, task_id, status="COMPLETED")
        await client.until("taskCompleted")
        check_history(client.of(task_id))


async def test_login_has_a_time_limit_and_bad_logins_are_closed(start_server: Any) -> None:
    server: ServerProcess = start_server(env={"WS_AUTH_TIMEOUT": "2000"})
    token = server.login()
    async with await ContractClient.open(server.ws_url()) as silent:
        assert await silent.closed() == 1008
        assert silent.messages[-1]["payload"]["code"] == "AUTH_TIMEOUT"
    async with await ContractClient.open(server.ws_url()) as bad:
        await bad.send("auth", {"token": "not a token"})
        assert await bad.closed() == 1008
        assert bad.messages[-1]["payload"]["code"] == "UNAUTHORIZED"
    async with await ContractClient.open(server.ws_url()) as early:
        await early.send("requestTaskStatus", {"videoId": "video_x"}, id="r1")
        answer = await early.receive()
        assert answer["payload"]["code"] == "UNAUTHORIZED"
        assert answer["id"] == "r1"
        await early.log_in(token)


async def test_a_restart_tells_clients_when_to_come_back(server: ServerProcess) -> None:
    token = server.login()

    async def stop() -> None:
        assert await anyio.to_thread.run_sync(server.terminate, 30) == 0

    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(token)
        with anyio.fail_after(scaled(30)):
            async with anyio.create_task_group() as group:
                group.start_soon(stop)
                code = await client.closed()
    assert code == 1012
    goodbye = client.messages[-1]["payload"]
    assert goodbye["code"] == "SERVER_SHUTDOWN"
    assert goodbye["details"]["retryAfter"] > 0
    with pytest.raises((OSError, websockets.InvalidHandshake)):
        await ContractClient.open(server.ws_url())


async def test_foreign_and_unknown_tasks_are_the_same_not_found(server: ServerProcess) -> None:
    admin = server.login()
    with server.client(admin) as rest:
        for name in ("anna", "bert"):
            body = {"username": name, "password": f"password of {name}"}
            assert rest.post("/api/v1/users", json=body).status_code == 201
    anna, bert = (server.login(name, f"password of {name}") for name in ("anna", "bert"))
    task_id = create(server, anna, provider="external")
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(bert)
        answers = []
        for id in (task_id, "video_00000000000000000000000000", "no such\x00thing"):
            await client.follow(id)
            answers.append((await client.until("error"))["payload"])
            await client.send("requestTaskStatus", {"videoId": id})
            answers.append((await client.until("error"))["payload"])
    assert {(a["code"], a["message"], a["retryable"]) for a in answers} == {
        ("TASK_NOT_FOUND", answers[0]["message"], False)
    }
    with server.client(bert) as rest:
        missing = rest.get(f"/api/v1/tasks/{task_id}")
        unknown = rest.get("/api/v1/tasks/video_00000000000000000000000000")
    assert missing.status_code == unknown.status_code == 404
    assert missing.json() == unknown.json()


async def test_rights_taken_away_by_another_process_end_what_is_open(start_server: Any) -> None:
    server: ServerProcess = start_server(env={"TASKWIRE_ACCESS_RECHECK": "0.3"})
    admin = server.login()
    with server.client(admin) as rest:
        body = {"username": "anna", "password": "password of anna"}
        assert rest.post("/api/v1/users", json=body).status_code == 201
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(server.login("anna", "password of anna"))
        with anyio.fail_after(scaled(30)):
            command = [
                sys.executable,
                "-m",
                "taskwire",
                "user",
                "disable",
                "anna",
                "--data",
                str(server.data),
            ]
            await anyio.run_process(command, cwd=server.folder)
        assert await client.closed() == 4003
    assert client.messages[-1]["payload"]["code"] == "UNAUTHORIZED"


async def test_a_member_of_a_team_follows_its_tasks_and_stops_when_they_leave(server: ServerProcess) -> None:
    admin = server.login()
    with server.client(admin) as rest:
        body = {"username": "anna", "password": "password of anna"}
        anna = rest.post("/api/v1/users", json=body).json()["userId"]
        team = rest.post("/api/v1/teams", json={"name": "Studio"}).json()["teamId"]
        rest.put(f"/api/v1/teams/{team}/members/{anna}").raise_for_status()
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(server.login("anna", "password of anna"))
        task_id = create(server, admin, provider="external", teamId=team)
        assert (await client.until("taskUpdated"))["payload"]["videoId"] == task_id
        await client.follow(task_id)
        await client.until("taskProgress")
        with server.client(admin) as rest:
            rest.delete(f"/api/v1/teams/{team}/members/{anna}").raise_for_status()
        gone = (await client.until("error"))["payload"]
        assert gone["code"] == "TASK_NOT_FOUND"
        assert gone["details"]["videoId"] == task_id
        report(server, admin, task_id, status="COMPLETED")
        await client.send("ping", id="after")
        assert (await client.receive())["id"] == "after", "news of a team that was left"
