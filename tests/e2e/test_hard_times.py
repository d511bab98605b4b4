"""The promises under bad conditions: a reader that stops, kill -9, and input of every bad kind."""

import asyncio
import json
import random
import socket
from typing import Any

import anyio
import pytest

from bench.crash import CrashPlan, check
from tests.support.contract import FINAL, ContractClient, check_history
from tests.support.server import ServerProcess
from tests.support.timing import eventually_async, scaled

pytestmark = pytest.mark.anyio


def make_task(server: ServerProcess, token: str) -> str:
    with server.client(token) as rest:
        answer = rest.post("/api/v1/tasks", json={"prompt": "x", "provider": "external"})
    task_id: str = answer.json()["id"]
    return task_id


@pytest.mark.timeout(180)
async def test_a_reader_that_stops_costs_nothing_and_comes_back_to_the_newest_state(
    start_server: Any,
) -> None:
    """20,000 updates go by; the kernel's buffers are kept small so that the server's own keeping is what is seen."""
    server: ServerProcess = start_server(env={"TASKWIRE_WS_SEND_BUFFER": "16384"})
    token = server.login()
    tasks = [make_task(server, token) for _ in range(20)]
    stopped = socket.create_connection(("127.0.0.1", server.port))
    stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stopped.setblocking(False)
    slow = await ContractClient.open(server.ws_url(), sock=stopped, max_queue=1)
    brisk = await ContractClient.open(server.ws_url())
    for client in (slow, brisk):
        await client.log_in(token)
        await client.follow(*tasks)
    for _ in tasks:
        await slow.until("taskProgress")
    slow.socket.transport.pause_reading()

    got = 0

    async def read() -> None:
        nonlocal got
        ends = 0
        while ends < len(tasks):
            got += 1
            ends += (await brisk.receive())["type"] in FINAL

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        async with server.async_client(token) as rest:
            before = 0
            for step in range(1000):
                reports = [
                    {"taskId": t, "progress": step * 0.09, "message": f"{step} " + "x" * 200} for t in tasks
                ]
                answer = await rest.post("/api/v1/reports", json={"reports": reports})
                assert answer.status_code == 200, answer.text
                if step == 200:
                    before = server.rss()
            grown = server.rss() - before
            done = [{"taskId": t, "status": "COMPLETED"} for t in tasks]
            assert (await rest.post("/api/v1/reports", json={"reports": done})).status_code == 200
            figures = (await rest.get("/api/v1/stats")).json()
    assert grown < 8_000_000, f"the server grew by {grown} bytes while one reader stood still"
    assert figures["conflated"] > 10_000, figures
    assert got > 19_000, "the other reader was held up"

    slow.socket.transport.resume_reading()
    ends = {(await slow.until(*FINAL))["payload"]["videoId"] for _ in tasks}
    assert ends == set(tasks)
    for task_id in tasks:
        check_history(slow.of(task_id))
        assert len(slow.of(task_id)) < 900, "nothing was conflated"
    await slow.socket.close()
    await brisk.socket.close()


@pytest.mark.timeout(240)
async def test_kill_9_loses_no_end_and_repeats_none() -> None:
    outcome = await check(CrashPlan(tasks=20, subscribers=40, kills=2, seed=20))
    assert not outcome.violations, outcome


BAD = [
    "", " ", "null", "[]", "{}", "1e999", '"text"', "{", "{]", "\u0000", "[" * 2000, '{"type":1}', '{"type":"auth"}',
    '{"type":"auth","payload":null}', '{"type":"auth","payload":{"token":5}}', '{"type":"nope","payload":{}}',
    '{"type":"subscribe_task","payload":{"videoId":{"$ne":1}}}', '{"type":"subscribe_task","payload":{"videoId":""}}',
    '{"type":"subscribe_task","payload":{"videoId":"../../etc/passwd"}}', '{"type":"ping","id":{"a":[1]}}',
    '{"type":"requestMultipleTaskStatus","payload":{"videoIds":"x"}}', '{"type":"__proto__","payload":{}}',
    '{"type":"requestMultipleTaskStatus","payload":{"videoIds":[]}}', '{"type":"subscribe_task","payload":[]}',
    json.dumps({"type": "requestMultipleTaskStatus", "payload": {"videoIds": [f"video_{n}" for n in range(5000)]}}),
    json.dumps({"type": "subscribe_task", "payload": {"videoId": "v" * 100_000}}), '{"type":"ping","id":NaN}',
    '{"type":"ping","id":"\\ud800"}', json.dumps({"type": "x" * 70_000}),
]  # fmt: skip


async def test_bad_input_is_answered_and_changes_nothing(server: ServerProcess) -> None:
    token = server.login()
    task_id = make_task(server, token)
    async with (
        await ContractClient.open(server.ws_url()) as watcher,
        await ContractClient.open(server.ws_url()) as bad,
    ):
        for client in (watcher, bad):
            await client.log_in(token)
            await client.follow(task_id)
            await client.until("taskProgress")
        random.Random(7).shuffle(BAD)
        for text in BAD:
            await bad.socket.send(text)
            answer = await bad.until("error", "pong", "authSuccess")
            assert answer["type"] == "error", (text[:80], answer)
            assert answer["payload"]["message"], answer
            assert "Traceback" not in json.dumps(answer)
        await bad.socket.send(b"\x00\xff binary")
        assert (await bad.until("error"))["payload"]["code"] == "INVALID_MESSAGE"
        with server.client(token) as rest:
            assert (
                rest.post(f"/api/v1/tasks/{task_id}/reports", json={"status": "COMPLETED"}).status_code == 200
            )
        for client in (watcher, bad):
            await client.until("taskCompleted")
            check_history(client.of(task_id))
    assert '"level":"error"' not in server.log(), server.log()[-3000:]


async def test_garbage_on_the_wire_closes_only_its_own_connection(server: ServerProcess) -> None:
    token = server.login()
    rng = random.Random(11)
    async with await ContractClient.open(server.ws_url()) as watcher:
        await watcher.log_in(token)
        for _ in range(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            writer.write(rng.randbytes(rng.randrange(1, 400)))
            if rng.random() < 0.5:
                writer.write_eof()
            writer.close()
        await watcher.send("ping", id="still here")
        while (await watcher.receive()).get("id") != "still here":
            pass

        async def only_the_watcher() -> bool:
            async with server.async_client(token) as rest:
                return bool((await rest.get("/api/v1/stats")).json()["connections"]["open"] == 1)

        await eventually_async(only_the_watcher, 30)
    assert '"level":"error"' not in server.log(), server.log()[-3000:]
    assert "Traceback" not in server.log()


async def test_a_flood_is_slowed_down_and_then_cut_off(start_server: Any) -> None:
    server: ServerProcess = start_server(
        env={
            "TASKWIRE_WS_MESSAGE_RATE": "1",
            "TASKWIRE_WS_MESSAGE_BURST": "5",
            "TASKWIRE_WS_FLOOD_LIMIT": "20",
        }
    )
    async with await ContractClient.open(server.ws_url()) as client:
        await client.log_in(server.login())
        for number in range(40):
            await client.send("ping", id=str(number))
        assert await client.closed() == 4029
    answers = [m for m in client.messages if m["type"] in ("pong", "error")]
    assert answers[0]["type"] == "pong"
    assert answers[-1]["payload"]["code"] == "RATE_LIMITED"


async def test_limits_on_connections_refuse_the_next_one(start_server: Any) -> None:
    server: ServerProcess = start_server(
        env={"TASKWIRE_MAX_CONNECTIONS_PER_ADDRESS": "3", "TASKWIRE_MAX_CONNECTIONS_PER_USER": "2"}
    )
    token = server.login()
    clients = [await ContractClient.open(server.ws_url()) for _ in range(3)]
    with pytest.raises(Exception, match="429"):
        await ContractClient.open(server.ws_url())
    for client in clients[:2]:
        await client.log_in(token)
    await clients[2].send("auth", {"token": token})
    assert (await clients[2].until("error"))["payload"]["code"] == "TOO_MANY_CONNECTIONS"
    assert await clients[2].closed() == 4030
    for client in clients:
        await client.socket.close()
    with pytest.raises(Exception, match="403"):
        await ContractClient.open(server.ws_url(), origin="https://evil.example")


async def test_a_handshake_with_two_origins_is_refused(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Origin: http://127.0.0.1\r\nOrigin: https://evil.example\r\n\r\n"
    )
    with anyio.fail_after(scaled(20)):
        assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    assert '"level":"error"' not in server.log(), server.log()[-3000:]
