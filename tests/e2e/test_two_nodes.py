"""Two nodes on one PostgreSQL and one Redis: what one is told, the other's subscribers see."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.contract import FINAL, ContractClient, check_history
from tests.support.server import ServerProcess
from tests.support.services import Redis
from tests.support.timing import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

SECRET = "a secret that both nodes share, as they must"


@pytest.fixture
def nodes(
    postgres_url: str, redis_url: str, start_server: Callable[..., ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    env = {"TASKWIRE_SECRET": SECRET, "TASKWIRE_LEASE": "3", "TASKWIRE_RENDER_WORKERS": "2"}
    arguments = ["--database", postgres_url, "--broker", redis_url]
    first, second = (start_server(arguments=arguments, env=env) for _ in range(2))
    return first, second


async def test_a_report_at_one_node_reaches_the_watchers_of_the_other(
    nodes: tuple[ServerProcess, ServerProcess],
) -> None:
    here, there = nodes
    token = here.login()
    async with await ContractClient.open(there.ws_url()) as client:
        await client.log_in(token)
        async with here.async_client(token) as rest:
            created = await rest.post("/api/v1/tasks", json={"prompt": "x", "provider": "external"})
            task_id = created.json()["id"]
            assert (await client.until("taskUpdated"))["payload"]["status"] == "QUEUED"
            await client.follow(task_id)
            await client.until("taskProgress")
            for progress in (10, 20, 30):
                await rest.post(f"/api/v1/tasks/{task_id}/reports", json={"progress": progress})
                while (await client.until("taskProgress"))["payload"]["progress"] != progress:
                    pass
            await rest.post(f"/api/v1/tasks/{task_id}/reports", json={"status": "COMPLETED"})
        await client.until(*FINAL)
        await client.send("ping", id="last")
        while (await client.receive()).get("id") != "last":
            pass
        check_history(client.of(task_id))
        assert [p["status"] for p in client.of(task_id, "taskUpdated")].count("COMPLETED") == 1


async def test_news_lost_while_redis_is_away_is_made_up_for(
    nodes: tuple[ServerProcess, ServerProcess], redis_server: Redis
) -> None:
    here, there = nodes
    token = here.login()
    async with await ContractClient.open(there.ws_url()) as client:
        await client.log_in(token)
        async with here.async_client(token) as rest:
            created = await rest.post("/api/v1/tasks", json={"prompt": "x", "provider": "external"})
            task_id = created.json()["id"]
            await client.follow(task_id)
            await client.until("taskProgress")
            redis_server.stop()
            try:
                await rest.post(f"/api/v1/tasks/{task_id}/reports", json={"progress": 50})
                answer = await rest.post(f"/api/v1/tasks/{task_id}/reports", json={"status": "COMPLETED"})
                assert answer.status_code == 200, "a broker that is away must not hold reports up"
            finally:
                redis_server.start()
        await client.until(*FINAL, timeout=60)
        check_history(client.of(task_id))


async def test_the_work_of_a_node_that_dies_is_taken_up_by_the_other(
    nodes: tuple[ServerProcess, ServerProcess],
) -> None:
    here, there = nodes
    token = here.login()
    body: dict[str, Any] = {"prompt": "x", "options": {"size": "1280x720", "seconds": 60, "fps": 60}}
    async with here.async_client(token) as rest, there.async_client(token) as other:
        ids = [(await rest.post("/api/v1/tasks", json=body)).json()["id"] for _ in range(2)]

        async def state(task_id: str) -> dict[str, Any]:
            found: dict[str, Any] = (await other.get(f"/api/v1/tasks/{task_id}")).json()
            return found

        async def under_way() -> bool:
            return [(await state(id))["status"] for id in ids] == ["PROCESSING", "PROCESSING"]

        async def taken_up() -> bool:
            return 2 in [(await state(id))["attempt"] for id in ids]

        await eventually_async(under_way, 60)
        here.kill9()
        await eventually_async(taken_up, 60)  # the lease is 3 s, and there is room for both
        for id in ids:
            assert (await other.post(f"/api/v1/tasks/{id}/cancel")).json()["status"] == "CANCELLED"
