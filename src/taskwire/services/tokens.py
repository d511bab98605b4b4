"""JSON Web Tokens (RFC 7519): our own, which are issued here, and those of an outside identity provider.

Which verifier a token goes to is told by its unverified header and issuer, and by those only. From there on the
verifier alone decides, with its own keys, its own algorithms and its own issuer: no token is good for both.
"""

import binascii
import hashlib
import hmac
import math
import re
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import jwt
import orjson
from jwt import PyJWK
from jwt.types import Options

from taskwire.core.errors import TaskwireError
from taskwire.core.ids import is_id, new_id
from taskwire.services.jwks import KEY_TYPES, KeySet

ISSUER: Final = "taskwire"
ALGORITHM: Final = "HS256"
MAX_LENGTH: Final = 16 * 1024
"""Longest token looked at, in characters."""
LEEWAY: Final = 5.0
"""How far the clocks of the identity provider and of this machine may be apart, in seconds."""

_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_CLAIM: Final = 255
_REMEMBERED: Final = 10_000  # tokens of ours, 300 bytes each

# Times are checked here, against the clock that is passed in, and to the millisecond.
_OWN: Final[Options] = {
    "require": ["sub", "iat", "exp", "jti", "iss", "aud"], "strict_aud": True,
    "verify_exp": False, "verify_iat": False, "verify_nbf": False,
}  # fmt: skip
_OUTSIDE: Final[Options] = {
    "require": ["sub", "exp", "iss", "aud"], "verify_exp": False, "verify_iat": False, "verify_nbf": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnClaims:
    """What a token of ours says. ``epoch`` counts only if it is still the user's; ``session`` names the login."""

    user_id: str
    epoch: int
    session: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class OutsideClaims:
    """What a token of the identity provider says; ``names`` are candidates for a user name, best first."""

    issuer: str
    subject: str
    names: tuple[str, ...]
    expires_at: int


class Tokens:
    """Issues and verifies tokens. A bad one raises UNAUTHORIZED, a genuine one past its time TOKEN_EXPIRED.

    ``secret`` is the installation's; the key that signs is derived from it, so that no other use of the secret can
    be turned into a token. With an identity provider, its ``issuer`` and ``audience`` are required: without them, any
    token that the provider makes for anybody's application would be good here.
    """

    def __init__(
        self,
        secret: str,
        *,
        keys: KeySet | None = None,
        issuer: str = "",
        audience: str = "",
        algorithms: tuple[str, ...] = (),
    ) -> None:
        self._key = hmac.digest(secret.encode(), b"taskwire access token v1", hashlib.sha256)
        self._keys = keys
        self.issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        # Tokens of ours found genuine before, by digest. The signature of one does not change, and checking it is a
        # tenth of what a reconnecting client costs; its time is checked anew every time.
        self._genuine: OrderedDict[bytes, OwnClaims] = OrderedDict()
        if keys is not None:
            check_provider(issuer, audience, algorithms)

    def issue(
        self, user_id: str, username: str, *, epoch: int, session: str, lifetime: float, now: int
    ) -> tuple[str, int]:
        """A token of ours and when it expires (ms). ``lifetime`` in seconds."""
        expires_at = now + max(1, int(lifetime * 1000))
        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": user_id,
            "name": username,
            "iat": now // 1000,
            "exp": expires_at // 1000 if expires_at % 1000 == 0 else expires_at / 1000,
            "jti": new_id("jwt", now),
            "sid": session,
            "epoch": epoch,
        }
        return jwt.encode(claims, self._key, ALGORITHM), expires_at

    async def verify(self, token: str, now: int) -> OwnClaims | OutsideClaims:
        """What the token says, now that it is known to be genuine and in time (``now`` in ms)."""
        digest = hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=16).digest()
        if (known_own := self._genuine.get(digest)) is not None:
            self._genuine.move_to_end(digest)
            if now >= known_own.expires_at:
                raise TaskwireError("TOKEN_EXPIRED")
            return known_own
        header, issuer = _peek(token)
        algorithm = header.get("alg")
        if algorithm == ALGORITHM and issuer == ISSUER:
            own = self._genuine[digest] = self._verify_own(token, now)
            if len(self._genuine) > _REMEMBERED:
                self._genuine.popitem(last=False)
            return own
        if self._keys is not None and issuer == self.issuer and isinstance(algorithm, str):
            kid = header.get("kid", "")
            known = algorithm in self._algorithms and isinstance(kid, str)
            key = await self._keys.find(kid, algorithm) if known else None
            if key is not None:
                return self._verify_outside(token, key, now)
        raise TaskwireError("UNAUTHORIZED")

    def session_of(self, token: str) -> str | None:
        """The login that one of our own tokens comes from, though the token may have expired; None for any other."""
        try:
            return self._verify_own(token, 0).session
        except TaskwireError:
            return None

    async def close(self) -> None:
        if self._keys is not None:
            await self._keys.close()

    def _verify_own(self, token: str, now: int) -> OwnClaims:
        claims = _decode(token, self._key, ALGORITHM, ISSUER, ISSUER, _OWN)
        expires_at = _milliseconds(claims["exp"])
        user_id, epoch, session = claims["sub"], claims.get("epoch"), claims.get("sid")
        if expires_at is None or not is_id(user_id) or type(epoch) is not int or not is_id(session):
            raise TaskwireError("UNAUTHORIZED")
        if now >= expires_at:
            raise TaskwireError("TOKEN_EXPIRED")
        return OwnClaims(user_id, epoch, str(session), expires_at)

    def _verify_outside(self, token: str, key: PyJWK, now: int) -> OutsideClaims:
        claims = _decode(token, key, key.algorithm_name, self.issuer, self._audience, _OUTSIDE)
        leeway = int(LEEWAY * 1000)
        for claim in ("nbf", "iat"):
            since = _milliseconds(claims.get(claim, 0))
            if since is None or since > now + leeway:
                raise TaskwireError("UNAUTHORIZED", "The token is not valid yet.")
        expires_at, subject = _milliseconds(claims["exp"]), claims["sub"]
        if expires_at is None or not _is_text(subject):
            raise TaskwireError("UNAUTHORIZED")
        if now >= expires_at + leeway:
            raise TaskwireError("TOKEN_EXPIRED")
        names = (claims.get("preferred_username"), claims.get("email"), subject)
        return OutsideClaims(
            self.issuer, subject, tuple(name for name in names if _is_text(name)), expires_at + leeway
        )


def check_provider(issuer: str, audience: str, algorithms: tuple[str, ...]) -> None:
    """Raises ValueError, naming the setting, unless tokens of the identity provider can be told and trusted."""
    if not issuer or not audience:
        raise ValueError(
            "With TASKWIRE_JWKS_URL, TASKWIRE_JWT_ISSUER and TASKWIRE_JWT_AUDIENCE must be set too."
        )
    if issuer == ISSUER or len(issuer) > _MAX_CLAIM:
        raise ValueError(
            f"TASKWIRE_JWT_ISSUER must not be {ISSUER!r}, and have at most {_MAX_CLAIM} characters."
        )
    if not algorithms or not KEY_TYPES.keys() >= set(algorithms):
        raise ValueError(f"TASKWIRE_JWT_ALGORITHMS must be some of {', '.join(KEY_TYPES)}.")


def _peek(token: str) -> tuple[Mapping[str, Any], object]:
    """The header and the issuer that the token claims for itself."""
    if len(token) > MAX_LENGTH or not _FORM.fullmatch(token):
        raise TaskwireError("UNAUTHORIZED")
    header, claims = (_json(part) for part in token.split(".")[:2])
    return header, claims.get("iss")


def _json(part: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if not isinstance(value, dict):
        raise TaskwireError("UNAUTHORIZED")
    return value


def _decode(
    token: str, key: bytes | PyJWK, algorithm: str, issuer: str, audience: str, options: Options
) -> dict[str, Any]:
    try:
        return jwt.decode(token, key, [algorithm], options, audience=audience, issuer=issuer)
    except (jwt.PyJWTError, ValueError) as error:
        raise TaskwireError("UNAUTHORIZED") from error


def _milliseconds(value: object) -> int | None:
    """A NumericDate (RFC 7519, section 2) in ms; None for anything else."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= 1e11
        or math.isnan(value)
    ):
        return None
    return round(value * 1000)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a claim is text that the database can hold (what is not Unicode, ``_peek`` has refused)."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_CLAIM and "\0" not in value
