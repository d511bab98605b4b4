"""The identity provider's keys: fetched when needed, once, and only those that are fit."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from taskwire.core.errors import Unavailable
from taskwire.services.jwks import KeySet
from tests.support.accounts import Clock
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None = "k", **fields: Any) -> dict[str, Any]:
    """The public part of a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    found = {name: value for name, value in found.items() if name != "key_ops"}
    return {**found, **({} if kid is None else {"kid": kid}), **fields}


class Provider(httpx.AsyncBaseTransport):
    """An identity provider, which may be slow, away, or talk nonsense."""

    def __init__(self, *keys: Mapping[str, Any]) -> None:
        self.keys = list(keys)
        self.fetches = 0
        self.answer: httpx.Response | None = None
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return self.answer or httpx.Response(200, json={"keys": self.keys})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Provider:
    return Provider(jwk(RSA))


@pytest.fixture
async def keys(provider: Provider, clock: Clock) -> AsyncIterator[KeySet]:
    made = KeySet(
        "https://id.example/jwks",
        algorithms=("RS256", "ES256", "EdDSA"),
        keep=300,
        pause=5,
        clock=clock.seconds,
        transport=provider,
    )
    yield made
    await made.close()


async def test_keys_are_fetched_once_in_their_time(keys: KeySet, provider: Provider, clock: Clock) -> None:
    assert provider.fetches == 0
    for _ in range(3):
        key = await keys.find("k", "RS256")
        assert key is not None
        assert key.algorithm_name == "RS256"
    assert provider.fetches == 1
    clock.advance(299)
    await keys.find("k", "RS256")
    assert provider.fetches == 1
    clock.advance(1)
    provider.keys = [jwk(P256, "new")]
    assert await keys.find("k", "RS256") is None  # the provider has taken it back
    assert provider.fetches == 2


async def test_many_at_once_share_one_fetch(keys: KeySet, provider: Provider) -> None:
    provider.go.clear()
    waiting = [asyncio.create_task(keys.find("k", "RS256")) for _ in range(50)]
    await eventually_async(lambda: provider.fetches)
    waiting[0].cancel()
    provider.go.set()
    found = await asyncio.gather(*waiting[1:])
    assert all(key is not None for key in found)
    assert provider.fetches == 1


async def test_an_unknown_key_is_looked_for_but_not_too_often(
    keys: KeySet, provider: Provider, clock: Clock
) -> None:
    await keys.find("k", "RS256")
    clock.advance(1)
    for number in range(100):
        assert await keys.find(f"made-up-{number}", "RS256") is None
    assert provider.fetches == 1
    clock.advance(5)
    provider.keys.append(jwk(P256, "new"))
    assert await keys.find("new", "ES256") is not None
    assert await keys.find("k", "RS256") is not None
    assert provider.fetches == 2


async def test_keys_known_are_used_while_the_provider_is_away(
    keys: KeySet, provider: Provider, clock: Clock
) -> None:
    await keys.find("k", "RS256")
    provider.error = httpx.ConnectError("away")
    clock.advance(10_000)
    assert await keys.find("k", "RS256") is not None
    assert provider.fetches == 2
    with pytest.raises(Unavailable):  # it may be a new one
        await keys.find("other", "RS256")
    clock.advance(10)
    provider.go.clear()  # now it does not even answer, and nobody waits for it
    async with asyncio.timeout(30):
        assert await keys.find("k", "RS256") is not None
    await eventually_async(lambda: provider.fetches == 3)
    provider.error = None
    provider.go.set()
    await eventually_async(lambda: not keys._failed)
    assert await keys.find("other", "RS256") is None


async def test_without_any_key_it_cannot_be_told(keys: KeySet, provider: Provider, clock: Clock) -> None:
    provider.error = httpx.ConnectError("away")
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await keys.find("k", "RS256")
        assert caught.value.retry_after == 5
    assert provider.fetches == 1
    provider.error = None
    clock.advance(5)
    assert await keys.find("k", "RS256") is not None


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"keys": {}}),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, json={"keys": [1, None, {}, {"kty": "RSA"}, {"kty": 5, "kid": []}]}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=json.dumps({"keys": [jwk(RSA)], "x": "y" * (1 << 20)})),
    ],
    ids=["500", "redirect", "html", "list", "no list", "empty", "nonsense", "deep", "huge"],
)
async def test_a_bad_answer_does_not_replace_good_keys(
    keys: KeySet, provider: Provider, clock: Clock, answer: httpx.Response
) -> None:
    await keys.find("k", "RS256")
    provider.answer = answer
    clock.advance(301)
    assert await keys.find("k", "RS256") is not None
    assert provider.fetches == 2
    assert keys._failed


@pytest.mark.parametrize(
    "unfit",
    [
        jwk(SMALL_RSA),
        jwk(RSA, use="enc"),
        jwk(RSA, key_ops=["encrypt"]),
        jwk(RSA, alg="RS512"),
        jwk(RSA, alg="HS256"),
        jwk(RSA, kid=5),  # type: ignore[arg-type]
        jwk(P384),
        jwk(P384, crv="P-256"),
        jwk(ED25519, crv="X25519"),
        {"kty": "oct", "kid": "k", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {**json.loads(HMACAlgorithm.to_jwk(b"s" * 32)), "kid": "k", "alg": "RS256"},
        {"kty": "RSA", "kid": "k", "n": "AQ", "e": "AQAB"},
        {"kty": "EC", "kid": "k", "crv": "P-256", "x": "AQ", "y": "AQ"},
    ],
    ids=[
        "small",
        "use",
        "ops",
        "alg",
        "hmac alg",
        "kid",
        "curve",
        "curve lie",
        "x25519",
        "oct",
        "oct lie",
        "n",
        "xy",
    ],
)
async def test_unfit_keys_are_passed_over(keys: KeySet, provider: Provider, unfit: dict[str, Any]) -> None:
    provider.keys = [unfit, jwk(ED25519, "good", use="sig", key_ops=["verify"], alg="EdDSA")]
    for algorithm in ("RS256", "ES256", "EdDSA"):
        assert await keys.find("k", algorithm) is None
    assert await keys.find("good", "EdDSA") is not None


async def test_a_key_is_found_for_its_own_algorithm_only(keys: KeySet, provider: Provider) -> None:
    provider.keys = [jwk(RSA, "r"), jwk(P256, "p")]
    assert await keys.find("r", "ES256") is None
    assert await keys.find("p", "RS256") is None
    assert await keys.find("r", "RS256") is not None
    assert await keys.find("r", "HS256") is None


async def test_a_token_may_leave_out_the_id_of_the_only_key(
    keys: KeySet, provider: Provider, clock: Clock
) -> None:
    provider.keys = [jwk(RSA, None), jwk(P256, "p")]
    assert await keys.find("", "RS256") is not None
    assert await keys.find("", "ES256") is not None
    provider.keys.append(jwk(RSA, "r"))
    clock.advance(301)
    assert await keys.find("", "RS256") is None  # which of the two?


async def test_closing_stops_a_fetch_under_way(keys: KeySet, provider: Provider) -> None:
    provider.go.clear()
    waiting = asyncio.create_task(keys.find("k", "RS256"))
    await eventually_async(lambda: provider.fetches)
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
