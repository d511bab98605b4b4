"""Which contract a WebSocket request means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.server.routes import contract_of

NATIVE = ["taskwire.v1"]


@pytest.mark.parametrize(
    ("target", "subprotocols", "contract"),
    [
        ("/ws", [], "tasks"),
        ("/ws/", [], "tasks"),
        ("/ws?x=1", [], "tasks"),
        ("/ws", ["graphql-ws"], "tasks"),
        ("/ws?EIO=4&transport=websocket", [], "tasks-socketio"),
        ("/ws/?EIO=4&transport=polling", [], "tasks-socketio"),
        ("/ws?EIO=4&token=t", [], "tasks-socketio"),
        ("/ws?token=t", [], "jobs"),
        ("/ws?token=", [], "jobs"),  # a bad token, which the contract answers with an error
        ("/ws?token", [], "jobs"),
        ("/ws?x=1&token=demo-token", ["chat"], "jobs"),
        ("/ws?Token=t", [], "tasks"),
        ("/ws", NATIVE, "native"),
        ("/ws", ["chat", "taskwire.v1"], "native"),
        ("/ws", ["taskwire.v2"], "tasks"),
        ("/ws/tasks", [], "tasks"),
        ("/ws/tasks/", [], "tasks"),
        ("/ws/tasks?token=t", [], "tasks"),
        ("/ws/tasks", NATIVE, "tasks"),
        ("/ws/jobs", [], "jobs"),
        ("/ws/jobs?token=t", [], "jobs"),
        ("/", [], None),
        ("/wss", [], None),
        ("/ws/other", [], None),
        ("/WS", [], None),
        ("/socket.io?EIO=4", [], None),
        ("/api/v1/tasks", [], None),
        ("", [], None),
        ("//ws", [], None),
        ("/ws?" + "&".join(f"p{number}=1" for number in range(100)), [], None),
        ("http://[broken/ws", [], None),
    ],
)
def test_who_is_who(target: str, subprotocols: list[str], contract: str | None) -> None:
    assert contract_of(target, subprotocols) == contract


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=3))
def test_no_target_does_worse_than_to_be_nobodys(target: str, subprotocols: list[str]) -> None:
    for each in (target, "/ws?" + target, "/ws" + target):
        assert contract_of(each, subprotocols) in (None, "tasks", "jobs", "native", "tasks-socketio")


def test_a_token_in_the_query_means_jobs_whatever_subprotocol_is_offered() -> None:
    assert contract_of("/ws?token=t", ["taskwire.v1"]) == "jobs"
    assert contract_of("/ws", ["taskwire.v1"]) == "native"
