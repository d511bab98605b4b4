"""Tokens: what is genuine is taken, what is not never is, and nothing but our own errors comes of it."""

import asyncio
import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from taskwire.core.errors import TaskwireError
from taskwire.services.jwks import KeySet
from taskwire.services.tokens import MAX_LENGTH, OutsideClaims, OwnClaims, Tokens
from tests.services.test_jwks import Provider, jwk
from tests.support.accounts import SECRET, Clock

NOW = 1_800_000_000_123
ISSUER = "https://id.example"
AUDIENCE = "taskwire-web"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ada-0",
    "exp": NOW // 1000 + 60,
    "iat": NOW // 1000,
    "email": "ada@example.com",
}

own = Tokens(SECRET)
TOKEN, EXPIRES_AT = own.issue("user_1", "ada", epoch=3, session="login_1", lifetime=60, now=NOW)


def both() -> Tokens:
    """A verifier of our own tokens and of an identity provider's."""
    algorithms = ("RS256", "ES256")
    transport = Provider(jwk(RSA, "r"), jwk(EC, "e"))
    keys = KeySet(
        f"{ISSUER}/jwks", algorithms=algorithms, keep=300, clock=Clock().seconds, transport=transport
    )
    return Tokens(SECRET, keys=keys, issuer=ISSUER, audience=AUDIENCE, algorithms=algorithms)


def verify(tokens: Tokens, token: str, now: int = NOW) -> OwnClaims | OutsideClaims:
    async def run() -> OwnClaims | OutsideClaims:
        try:
            return await tokens.verify(token, now)
        finally:
            await tokens.close()

    return asyncio.run(run())


def passes(tokens: Tokens, token: str, now: int = NOW) -> bool:
    return isinstance(verify(tokens, token, now), OwnClaims | OutsideClaims)


def refused(tokens: Tokens, token: str, now: int = NOW) -> str:
    """The code of the error that comes of a token."""
    with pytest.raises(TaskwireError) as caught:
        verify(tokens, token, now)
    return caught.value.code


def outside(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r", **changes: Any) -> str:
    """A token of the identity provider; a claim changed to None is left out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


def sign_own(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token signed with our own key, with claims that we would not write."""
    claims = jwt.decode(TOKEN, options={"verify_signature": False})
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, own._key, "HS256", headers=header)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


# Our own


def test_our_own_token_says_what_was_put_in() -> None:
    assert EXPIRES_AT == NOW + 60_000
    assert verify(own, TOKEN) == OwnClaims("user_1", 3, "login_1", EXPIRES_AT)
    claims = jwt.decode(TOKEN, options={"verify_signature": False})
    assert claims == {
        "iss": "taskwire",
        "aud": "taskwire",
        "sub": "user_1",
        "name": "ada",
        "iat": NOW // 1000,
        "exp": EXPIRES_AT / 1000,
        "jti": claims["jti"],
        "sid": "login_1",
        "epoch": 3,
    }
    assert (
        own.issue("u", "n", epoch=0, session="s", lifetime=1, now=NOW)[0]
        != own.issue("u", "n", epoch=0, session="s", lifetime=1, now=NOW)[0]
    )


def test_a_token_ends_to_the_millisecond() -> None:
    assert passes(own, TOKEN, EXPIRES_AT - 1)
    assert refused(own, TOKEN, EXPIRES_AT) == "TOKEN_EXPIRED"


def test_another_secret_makes_other_tokens() -> None:
    other = Tokens(SECRET + "!")
    assert refused(other, TOKEN) == "UNAUTHORIZED"
    assert refused(other, TOKEN, EXPIRES_AT + 1) == "UNAUTHORIZED"


def test_the_secret_itself_signs_nothing() -> None:
    claims = jwt.decode(TOKEN, options={"verify_signature": False})
    assert refused(own, jwt.encode(claims, SECRET, "HS256")) == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": ["taskwire"]},
        {"aud": None},
        {"iss": "taskwire "},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"exp": None},
        {"exp": True},
        {"exp": "1900000000"},
        {"exp": -1},
        {"exp": 1e300},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"iat": None},
        {"jti": None},
        {"epoch": None},
        {"epoch": True},
        {"epoch": "3"},
        {"sid": None},
        {"sid": 5},
    ],
    ids=str,
)
def test_claims_that_we_would_not_write_are_refused_though_signed(changes: dict[str, Any]) -> None:
    assert passes(own, sign_own())
    assert refused(own, sign_own(**changes)) == "UNAUTHORIZED"


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"kid": 5}], ids=str)
def test_headers_that_nobody_understands_are_refused(header: dict[str, Any]) -> None:
    claims = jwt.decode(TOKEN, options={"verify_signature": False})
    head = {"alg": "HS256", "typ": "JWT", **header}
    signed = f"{part(head)}.{part(claims)}"
    signature = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), own._key)
    token = f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert refused(own, token) == "UNAUTHORIZED"


def test_the_login_of_a_token_is_known_after_its_end_too() -> None:
    assert own.session_of(TOKEN) == "login_1"
    assert own.session_of(TOKEN[:-3] + "AAA") is None
    assert own.session_of(outside()) is None
    assert own.session_of("tw_x") is None


# The identity provider's


def test_a_token_of_the_provider_names_its_user() -> None:
    assert verify(both(), outside()) == OutsideClaims(
        ISSUER, "ada-0", ("ada@example.com", "ada-0"), NOW // 1000 * 1000 + 65_000
    )
    claims = verify(both(), outside(EC, "ES256", "e", preferred_username="ada", email=None))
    assert isinstance(claims, OutsideClaims)
    assert claims.names == ("ada", "ada-0")
    assert isinstance(verify(both(), TOKEN), OwnClaims)


def test_the_provider_counts_only_if_there_is_one() -> None:
    assert refused(own, outside()) == "UNAUTHORIZED"


def test_the_clocks_may_differ_a_little() -> None:
    now = NOW // 1000
    assert passes(both(), outside(nbf=now + 4, iat=now + 4))
    assert passes(both(), outside(exp=now - 4))
    assert refused(both(), outside(exp=now - 6)) == "TOKEN_EXPIRED"
    assert refused(both(), outside(nbf=now + 6)) == "UNAUTHORIZED"
    assert refused(both(), outside(iat=now + 6)) == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another app"},
        {"aud": ["another app"]},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "a\0b"},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": "x"},
        {"iat": True},
        {"kid": "e"},
        {"kid": "unknown"},
        {"kid": None, "key": EC},
        {"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)},
        {"algorithm": "RS384"},
        {"algorithm": "PS256"},
    ],
    ids=" ".join,
)
def test_tokens_that_the_provider_did_not_make_for_us_are_refused(changes: dict[str, Any]) -> None:
    if isinstance(changes.get("key"), ec.EllipticCurvePrivateKey):
        changes = {**changes, "algorithm": "ES256", "kid": "r"}
    assert refused(both(), outside(**changes)) == "UNAUTHORIZED"


def test_several_audiences_may_be_meant() -> None:
    assert passes(both(), outside(aud=["another app", AUDIENCE]))


def test_text_that_no_database_holds_is_no_name() -> None:
    claims = verify(both(), outside(preferred_username="a\0", email=["ada@example.com"]))
    assert isinstance(claims, OutsideClaims)
    assert claims.names == ("ada-0",)
    assert refused(both(), outside(email="\ud800")) == "UNAUTHORIZED"


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
@pytest.mark.parametrize("issuer", [ISSUER, "taskwire"])
def test_the_public_key_is_no_secret(form: PublicFormat, issuer: str) -> None:
    claims = {**jwt.decode(TOKEN, options={"verify_signature": False}), **CLAIMS, "iss": issuer}
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'r'})}.{part(claims)}"
    algorithm = jwt.get_algorithm_by_name("HS256")
    for encoding in (Encoding.PEM, Encoding.DER):
        signature = algorithm.sign(signed.encode(), RSA.public_key().public_bytes(encoding, form))
        token = f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        assert refused(both(), token) == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS384", "HS512", "RS256", None, 5, ["HS256"]], ids=str
)
@pytest.mark.parametrize("issuer", [ISSUER, "taskwire"])
def test_no_other_algorithm_is_taken(algorithm: object, issuer: str) -> None:
    claims = {**jwt.decode(TOKEN, options={"verify_signature": False}), **CLAIMS, "iss": issuer}
    for signature in ("", "AA", TOKEN.split(".")[2]):
        token = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': 'r'})}.{part(claims)}.{signature}"
        assert refused(both(), token) == "UNAUTHORIZED"


def test_neither_side_can_speak_for_the_other() -> None:
    assert refused(both(), outside(iss="taskwire", aud="taskwire")) == "UNAUTHORIZED"
    assert refused(both(), sign_own(iss=ISSUER, aud=AUDIENCE)) == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("issuer", "audience", "algorithms", "setting"),
    [
        ("", AUDIENCE, ("RS256",), "TASKWIRE_JWT_ISSUER"),
        (ISSUER, "", ("RS256",), "TASKWIRE_JWT_AUDIENCE"),
        ("taskwire", AUDIENCE, ("RS256",), "TASKWIRE_JWT_ISSUER"),
        (ISSUER, AUDIENCE, (), "TASKWIRE_JWT_ALGORITHMS"),
        (ISSUER, AUDIENCE, ("RS256", "HS256"), "TASKWIRE_JWT_ALGORITHMS"),
        (ISSUER, AUDIENCE, ("none",), "TASKWIRE_JWT_ALGORITHMS"),
    ],
)
def test_a_provider_that_cannot_be_trusted_is_not_set_up(
    issuer: str, audience: str, algorithms: tuple[str, ...], setting: str
) -> None:
    keys = KeySet("https://id.example/jwks", algorithms=(), keep=300)
    with pytest.raises(ValueError, match=setting):
        Tokens(SECRET, keys=keys, issuer=issuer, audience=audience, algorithms=algorithms)
    asyncio.run(keys.close())


# Whatever comes


@st.composite
def mutations(draw: st.DrawFn, token: str) -> str:
    """A token with some characters replaced, left out or put in, or its parts in another order."""
    kind = draw(st.sampled_from(["replace", "delete", "insert", "parts", "pad", "case"]))
    place = draw(st.integers(0, len(token) - 1))
    if kind == "replace":
        return token[:place] + draw(st.characters()) + token[place + 1 :]
    if kind == "delete":
        return token[:place] + token[place + draw(st.integers(1, 20)) :]
    if kind == "insert":
        return token[:place] + draw(st.text(min_size=1, max_size=5)) + token[place:]
    if kind == "parts":
        return ".".join(draw(st.lists(st.sampled_from([*token.split("."), ""]), max_size=5)))
    if kind == "pad":
        return draw(st.sampled_from(["{}=", "{}==", " {}", "{} ", "{}\n", "{}.", ".{}", "{}\0"])).format(
            token
        )
    return token[:place] + token[place:].swapcase()


@given(mutations(TOKEN))
def test_a_mutated_token_of_ours_never_passes(token: str) -> None:
    if token != TOKEN:
        assert refused(own, token) == "UNAUTHORIZED"


@given(mutations(PROVIDED := outside()))
def test_a_mutated_token_of_the_provider_never_passes(token: str) -> None:
    if token != PROVIDED:
        assert refused(both(), token) == "UNAUTHORIZED"


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", fullmatch=True))
def test_any_text_is_refused_and_nothing_else_happens(token: str) -> None:
    assert refused(own, token) == "UNAUTHORIZED"
    assert own.session_of(token) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["sub", "exp", "iat", "nbf", "jti", "epoch", "sid", "aud", "name", "email"])


@given(st.dictionaries(names, anything))
def test_any_signed_claims_are_taken_or_refused_and_nothing_else_happens(changes: dict[str, Any]) -> None:
    claims = {**jwt.decode(TOKEN, options={"verify_signature": False}), **changes}
    for token, tokens in (
        (jwt.encode(claims, own._key, "HS256"), own),
        (outside(**{name: value for name, value in changes.items() if name != "aud"}), both()),
    ):
        try:
            verify(tokens, token)
            code = "taken"
        except TaskwireError as error:
            code = error.code
        assert code in ("taken", "UNAUTHORIZED", "TOKEN_EXPIRED")


@given(anything, anything)
def test_any_json_as_header_and_claims(header: Any, claims: Any) -> None:
    for issuer in (ISSUER, "taskwire"):
        head = {"alg": "RS256", "kid": "r", **header} if isinstance(header, dict) else header
        body = {**claims, "iss": issuer} if isinstance(claims, dict) else claims
        assert refused(both(), f"{part(head)}.{part(body)}.AAAA") == "UNAUTHORIZED"


@pytest.mark.parametrize("inner", ["[" * 6000, '{"a":' * 2000, "9" * 11_000, '"' + "\\ud800" * 1500 + '"'])
def test_json_bombs_are_refused(inner: str) -> None:
    packed = base64.urlsafe_b64encode(inner.encode()).rstrip(b"=").decode()
    wrapped = (
        base64.urlsafe_b64encode(b'{"iss":"taskwire","x":' + inner.encode() + b"}").rstrip(b"=").decode()
    )
    for token in (
        f"{packed}.{packed}.AA",
        f"{part({'alg': 'HS256'})}.{wrapped}.AA",
        f"{wrapped}.{wrapped}.AA",
    ):
        assert refused(own, token) == "UNAUTHORIZED"


def test_a_token_too_long_is_not_looked_at() -> None:
    started = time.perf_counter()
    assert refused(own, "a." * 5_000_000) == "UNAUTHORIZED"
    assert refused(own, sign_own(name="x" * MAX_LENGTH)) == "UNAUTHORIZED"
    assert time.perf_counter() - started < 5
