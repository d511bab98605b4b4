"""Whose pages may connect, and who is behind a proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.server.origins import TrustedProxies, origin_allowed

APP = ["https://app.example", "https://Other.example:8443/"]


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "may"),
    [
        (None, "media.example", [], True),  # no browser
        (None, "media.example", APP, True),
        (None, None, [], True),
        ("https://media.example", "media.example", [], True),
        ("https://media.example:8443", "media.example", [], True),  # a proxy may have left the port out
        ("https://MEDIA.example", "media.example:3000", [], True),
        ("https://evil.example", "media.example", [], False),
        ("https://media.example.evil", "media.example", [], False),
        ("https://evil-media.example", "media.example", [], False),
        ("https://media.example@evil.example", "media.example", [], False),
        ("null", "media.example", [], False),  # a sandboxed frame, or a file
        ("null", "localhost", [], False),
        ("", "media.example", [], False),
        ("https://media.example", None, [], False),
        ("https://media.example", "", [], False),
        ("https://[broken", "media.example", [], False),
        ("https://media.example", "[broken", [], False),
        ("file://", "localhost", [], False),
        ("http://localhost:5173", "localhost:3000", [], True),
        ("http://localhost:5173", "127.0.0.1:3000", [], True),
        ("http://127.0.0.1:5173", "[::1]:3000", [], True),
        ("http://127.5.5.5", "localhost", [], True),
        ("http://app.localhost:5173", "127.0.0.1:3000", [], True),
        ("http://localhost.evil.example", "127.0.0.1:3000", [], False),
        ("http://127.0.0.1.evil.example", "127.0.0.1:3000", [], False),
        ("http://192.168.1.5", "127.0.0.1:3000", [], False),
        ("http://localhost:5173", "media.example", [], False),
        ("https://app.example", "media.example", APP, True),
        ("https://APP.example", "media.example", APP, True),
        ("https://app.example/", "media.example", APP, True),
        ("https://other.example:8443", "media.example", APP, True),
        ("https://other.example", "media.example", APP, False),
        ("http://app.example", "media.example", APP, False),
        ("https://app.example:8443", "media.example", APP, False),
        ("https://media.example", "media.example", APP, False),  # a list is the whole list
        ("http://localhost", "localhost", APP, False),
        ("null", "media.example", ["null"], True),
        ("https://evil.example", "media.example", ["*"], True),
        ("null", None, ["*"], True),
        ("https://evil.example", "media.example", ["https://app.example", "*"], True),
    ],
)
def test_origins(origin: str | None, host: str | None, allowed: list[str], may: bool) -> None:
    assert origin_allowed(origin, host, allowed) is may


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_origin_does_worse_than_to_be_refused(origin: str, host: str) -> None:
    assert origin_allowed(origin, host, []) in (True, False)
    assert origin_allowed(f"https://{origin}", f"{host}:3000", []) in (True, False)
    assert origin_allowed(origin, host, APP) is False


PROXIES = ["10.0.0.0/8", "192.0.2.1", "fd00::/8"]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        (PROXIES, "203.0.113.5", ["198.51.100.1"], "203.0.113.5"),  # said by somebody we do not believe
        (PROXIES, "10.0.0.1", [], "10.0.0.1"),
        (PROXIES, "10.0.0.1", [""], "10.0.0.1"),
        (PROXIES, "10.0.0.1", [" , "], "10.0.0.1"),
        (PROXIES, "10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (PROXIES, "192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        (PROXIES, "192.0.2.2", ["198.51.100.1"], "192.0.2.2"),
        (PROXIES, "10.0.0.1", ["198.51.100.1, 10.9.9.9"], "198.51.100.1"),  # two proxies of ours
        (
            PROXIES,
            "10.0.0.1",
            ["6.6.6.6, 198.51.100.1"],
            "198.51.100.1",
        ),  # the first is the client's own claim
        (PROXIES, "10.0.0.1", ["6.6.6.6", "198.51.100.1", "10.9.9.9"], "198.51.100.1"),
        (PROXIES, "fd00::1", ["2001:db8::7"], "2001:db8::7"),
        (PROXIES, "::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),  # IPv4 on a socket for both
        (
            PROXIES,
            "10.0.0.1",
            ["198.51.100.1:52311"],
            "198.51.100.1",
        ),  # some add the port, which always changes
        (PROXIES, "10.0.0.1", ["[2001:db8::7]:52311"], "2001:db8::7"),
        (PROXIES, "10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        (PROXIES, "10.0.0.1", ["2001:DB8:0::7"], "2001:db8::7"),
        (PROXIES, "10.0.0.1", ["198.51.100.1, ::ffff:10.9.9.9"], "198.51.100.1"),
        (PROXIES, "10.0.0.1", ["unknown"], "unknown"),
        (PROXIES, "10.0.0.1", ["x" * 500], "x" * 64),
        (PROXIES, "local", ["198.51.100.1"], "local"),
        (["0.0.0.0/0", "::/0"], "203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
    ],
)
def test_the_client_behind_proxies(trusted: list[str], peer: str, forwarded: list[str], client: str) -> None:
    assert TrustedProxies(trusted).client_address(peer, forwarded) == client


@pytest.mark.parametrize("entry", ["proxy.example", "10.0.0.0/99", "", "*"])
def test_what_is_no_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        TrustedProxies([entry])


@given(st.lists(st.text(max_size=30), max_size=4))
def test_no_header_does_harm(forwarded: list[str]) -> None:
    assert len(TrustedProxies(PROXIES).client_address("10.0.0.1", forwarded)) <= 64
