"""Server addresses as people type them."""

import pytest

from taskwire.client.address import base_url, is_local, websocket_url
from taskwire.client.errors import ClientError


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        (" https://media.example/ ", "https://media.example"),
        ("https://media.example/taskwire/?x=1#y", "https://media.example/taskwire"),
        ("localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
    ],
)
def test_base_url(typed: str, base: str) -> None:
    assert base_url(typed) == base


@pytest.mark.parametrize(
    "typed", ["", "ftp://x", "http://", "http://x:y", "http://x:0", "http://[::1", "ws://x"]
)
def test_not_an_address(typed: str) -> None:
    with pytest.raises(ClientError, match="Wanted the server's address"):
        base_url(typed)


def test_websocket_url() -> None:
    assert websocket_url("http://127.0.0.1:3000") == "ws://127.0.0.1:3000/ws"
    assert websocket_url("https://media.example/taskwire") == "wss://media.example/taskwire/ws"


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://a.example", False),
    ],
)
def test_is_local(base: str, local: bool) -> None:
    assert is_local(base) is local
