"""Nothing that is a secret gets through masking, however it is spelled or wherever it hides."""

import base64
import dataclasses
import json
import time
from collections import namedtuple
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from taskwire import masking
from taskwire.masking import (
    MASK,
    MAX_TEXT,
    forget_secrets,
    is_sensitive,
    mask_event,
    mask_text,
    mask_value,
    register_secret,
)

SECRET = "correct-horse/battery+staple"

secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=60).filter(
    lambda s: len(set(s.strip())) > 3
)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password=hunter2 x=1", "password=*** x=1"),
        ("password='hun\\'ter2', user=bob", "password='***', user=bob"),
        ('{"password": "a,b c", "n": 1}', '{"password": "***", "n": 1}'),
        ("password=b'hunter2' rest", "password=*** rest"),
        ("Login(password=Pass('hunter2'), n=1)", "Login(password=***, n=1)"),
        ("password=ab,cd;ef user=1", "password=*** user=1"),
        ("pass=hunter2", "pass=***"),
        ('f"password={x}")\n  File "a.py", line 1', 'f"password=***\n  File "a.py", line 1'),
        ("password='unfinished\nnext line", "password='***'\nnext line"),
        ("token = ['abc', 'def'] rest", "token = *** rest"),
        ("token=abc,user=bob", "token=***,user=bob"),
        ("GET /ws?token=abc.def&x=1 HTTP/1.1", "GET /ws?token=***&x=1 HTTP/1.1"),
        ("next=%2Fws%3Ftoken%3Dabc", "next=%2Fws%3Ftoken%3D***"),
        ("https://x.example/?key=AIzaSy12&b=2", "https://x.example/?key=***&b=2"),
        ("Authorization: Basic dXNlcjpwYXNz\nHost: x", "Authorization: ***\nHost: x"),
        ("authorization: bare-provider-key", "authorization: ***"),
        ('Cookie: sid="abc"; other=def', "Cookie: ***"),
        ("(b'cookie', b'sid=abc')", "(b'cookie', ***"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("sent Bearer abc.def-ghi to it", "sent Bearer *** to it"),
        ("refreshToken: abc, x", "refreshToken: ***, x"),
        ("postgresql://user:p@ss/w@host:5432/db", "postgresql://***@host:5432/db"),
        ("redis://:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
        ("https://ghp_abc@git.example/x", "https://***@git.example/x"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln today", "got *** today"),
        ("key tw_k1abcdef_0123456789abcdef used", "key *** used"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY----- ok", "*** ok"),
    ],
)
def test_looks_like_a_secret(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "Missing bearer token.",
        "token_lifetime=3600 password_min_length=8 secretId=5 tokenType=access",
        "password=None token=null",
        "task video_01k3 of mail@example.com at https://x.example:3000/a?b=c",
        "monkey=5 compass=4 passed=3",
        "Basic authentication is off",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert mask_text(text) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("password", True), ("PASSWORD", True), ("db_passwd", True), ("refreshToken", True), ("X-Api-Key", True),
        ("authorization", True), ("Set-Cookie", True), ("clientSecret", True), ("private_key", True),
        ("password_hash", True), ("ws_auth_token", True), ("pass", True), (b"authorization", True), ("jwt", True),
        ("token_lifetime", False), ("tokenId", False), ("password_min_length", False), ("token_epoch", False),
        ("passed", False), ("key", False), ("task", False), (5, False), ("cookie_account", True),
    ],
)  # fmt: skip
def test_names(name: object, expected: bool) -> None:
    assert is_sensitive(name) is expected


@pytest.mark.parametrize("before", ["", "a", "ab", "user:", "§"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_registered_in_base64(before: str, after: str) -> None:
    register_secret(SECRET)
    whole = (before + SECRET + after).encode()
    for code in (base64.b64encode(whole), base64.urlsafe_b64encode(whole)):
        masked = mask_text(f"got {code.decode()} there")
        assert MASK in masked
        # What stays at the two edges is less than half a character of the secret at each.
        assert (
            len(masked)
            <= len("got  there") + len(MASK) + 4 * (len(before.encode()) + len(after) + 3) // 3 + 4
        )


@settings(max_examples=300)
@given(secrets, st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_registered_anywhere(secret: str, before: str, after: str, padded: bool) -> None:
    forget_secrets()
    register_secret(SecretStr(secret) if padded else secret)
    spellings = {
        secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(json.dumps(secret))[3:-3], repr(secret)[1:-1],
        secret.encode().hex(), secret.encode().hex().upper(), quote(secret, safe="").lower(),
    }  # fmt: skip
    for spelling in spellings:
        if spelling == quote(secret, safe="").lower() and secret != secret.lower():
            continue  # lower-casing changed the secret itself
        assume(spelling not in before + MASK + after)
        assert spelling not in mask_text(before + spelling + after), spelling
        assert spelling not in json.dumps(mask_value({"a": [before + spelling + after]}), ensure_ascii=False)


Pair = namedtuple("Pair", ["password", "note"])


@dataclasses.dataclass
class Account:
    name: str
    password: str
    note: str = ""


class Model(BaseModel):
    api_key: str
    other: str
    hidden: SecretStr = SecretStr("hunter22")


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError(SECRET)

    __str__ = __repr__


class Talkative:
    def __repr__(self) -> str:
        return f"<Talkative of {SECRET}>"


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter22"},
        {"deep": [{"er": ({"token": "hunter22"},)}]},
        {"headers": [(b"authorization", b"hunter22"), (b"cookie", b"hunter22")]},
        {"headers": [["Cookie", "hunter22"]]},
        Pair("hunter22", "x"),
        Account("bob", "hunter22"),
        [Account("bob", "x", SECRET)],
        Model(api_key="hunter22", other=SECRET),
        {SECRET: 1},
        {SECRET.encode(): 1},
        {SECRET},
        frozenset({SECRET}),
        SECRET.encode(),
        bytearray(SECRET.encode()),
        memoryview(SECRET.encode()),
        ValueError(SECRET),
        ValueError({"password": "hunter22"}),
        KeyError(SECRET),
        Talkative(),
        Rude(),
        [Rude(), Talkative()],
        Path("/tmp") / SECRET,
        b"password=hunter22",
        {"json": json.dumps({"password": "hunter22"})},
        {"json": json.dumps(json.dumps({"password": "hunter22"}))},
        SecretStr("hunter22"),
        {"password": 12345678, "pin": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_structures(value: Any) -> None:
    register_secret(SECRET)
    masked = json.dumps(mask_value(value))
    assert "hunter22" not in masked
    assert SECRET not in masked
    assert "12345678" not in masked


def test_numbers_that_are_secrets() -> None:
    register_secret("4831209")
    assert mask_value({"n": 4831209, "m": 4831208}) == {"n": MASK, "m": 4831208}
    assert mask_event({"event": "x", "n": 4831209}) == {"event": "x", "n": MASK}


def test_plain_values_stay_as_they_are() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    value = {"n": 1, "f": 1.5, "b": True, "none": None, "list": [1, "a"], "at": at, "id": UUID(int=1)}
    assert mask_value(value) == {**value, "at": str(at), "id": str(UUID(int=1))}
    assert mask_value({"token": None, "secret": "", "password": True}) == {
        "token": None, "secret": "", "password": True,
    }  # fmt: skip


def test_long_and_deep_values_are_cut() -> None:
    text = mask_text("x" * 10_000)
    assert len(text) < MAX_TEXT + 40
    assert text.endswith("(10000 characters)")
    loop: list[Any] = []
    loop.append(loop)
    assert len(json.dumps(mask_value(loop))) < 100
    assert len(mask_value(list(range(1000)))) == 101
    assert len(mask_value({str(n): n for n in range(1000)})) == 101


@pytest.mark.parametrize("position", [0, 1_990, 49_990, 41_800, 60_000])
def test_a_cut_never_leaves_half_a_secret(position: int) -> None:
    register_secret(SECRET)
    for shift in range(len(SECRET)):
        masked = mask_text("." * (position - shift if position else 0) + SECRET + "." * 60_000, 100_000)
        assert SECRET[:6] not in masked


def test_short_values_are_not_registered() -> None:
    register_secret("")
    register_secret("abc")
    assert mask_text("abc") == "abc"


def test_lines_of_a_key_are_registered_one_by_one() -> None:
    register_secret("-----BEGIN X-----\nQUJDREVGR0hJSktMTU5PUA\nsecond-line-of-the-secret\n-----END X-----")
    assert mask_text("found second-line-of-the-secret there") == f"found {MASK} there"


def test_ordinary_events_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costly patterns are not even tried where nothing hints at a secret."""
    register_secret(SECRET)
    monkeypatch.setattr(masking, "_masked", lambda _: pytest.fail("looked closer"))
    event = {
        "timestamp": "2026-11-20T19:47:06.842Z", "event": "task.committed", "task": "video_01k3abcdef", "revision": 12,
        "took_ms": 1.5, "path": "/api/v1/tasks/video_01k3", "ok": True, "team": None, "request_id": "req_01k3",
    }  # fmt: skip
    assert mask_event(dict(event)) == event


EVIL = ["://", "token", "token='", 'token=\\"', "eyJ", "tw_", "bearer ", "://a:", "cookie" + " " * 50, "token=[[",
        "token=a,", "-----BEGIN PRIVATE KEY-----", "a", "\\", "token=&&&", "@", "pass\\\\"]  # fmt: skip


@pytest.mark.parametrize("piece", EVIL)
def test_no_text_takes_long(piece: str) -> None:
    """The patterns must not backtrack without end on text that somebody sends on purpose."""
    start = time.process_time()
    mask_text((piece * 100_000)[:200_000] + "@token=")
    assert time.process_time() - start < 2
