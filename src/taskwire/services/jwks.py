"""The public keys of an outside identity provider (JWKS, RFC 7517): fetched, checked, cached."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from taskwire.core.errors import Unavailable

log = structlog.get_logger(__name__)

KEY_TYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""The algorithms that may be taken from a provider, each with the one type (and curve) of key that it goes with.

Only asymmetric ones: were HS256 among them, anybody could sign with the provider's *public* key.
"""

_MIN_RSA_BITS: Final = 2048
_MAX_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 200
_TIMEOUT: Final = 5.0  # seconds for one fetch

Keys = Mapping[tuple[str, str], PyJWK]  # by (kid, algorithm); the kid is "" for keys without one


class KeySet:
    """The keys at ``url`` for the given ``algorithms``.

    Fetched when first needed, again after ``keep`` seconds, and when a token names an unknown key; one fetch at a time,
    and one in ``pause`` seconds at the most. If the provider does not answer, the keys known go on being used.
    """

    def __init__(
        self,
        url: str,
        *,
        algorithms: tuple[str, ...],
        keep: float,
        pause: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._keep = keep
        self._pause = pause
        self._clock = clock
        self._client = httpx.AsyncClient(
            transport=transport, timeout=_TIMEOUT, headers={"Accept": "application/json"}
        )
        self._keys: Keys = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """The key to check a signature with, None if the provider has no such key.

        ``kid`` may be "" when the provider has a single key for the algorithm. Raises Unavailable when the key is not
        known and the provider cannot be asked.
        """
        if self._clock() - self._fetched_at >= self._keep:
            await self._refresh(wait=not self._failed or not self._keys)
        key = self._known(kid, algorithm)
        if key is None:
            await self._refresh(wait=True)
            key = self._known(kid, algorithm)
        if key is None and self._failed:
            raise Unavailable(
                "The identity provider's keys cannot be fetched right now.", retry_after=self._pause
            )
        return key

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await self._client.aclose()

    def _known(self, kid: str, algorithm: str) -> PyJWK | None:
        if kid:
            return self._keys.get((kid, algorithm))
        candidates = [key for (_, name), key in self._keys.items() if name == algorithm]
        return candidates[0] if len(candidates) == 1 else None

    async def _refresh(self, *, wait: bool) -> None:
        """Fetch, unless that was tried a moment ago. Without ``wait`` the fetch goes on in the background."""
        if self._fetching is None:
            if self._clock() - self._tried_at < self._pause:
                return
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        if wait:
            await asyncio.shield(self._fetching)  # one who gives up does not stop it for the others

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                keys = _usable(await self._download(), self._algorithms)
            if not keys:
                raise ValueError(f"no usable key for {', '.join(self._algorithms)}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys known go on being used
            self._failed = True
            log.warning(
                "jwks.failed", url=self._url, reason=f"{type(error).__name__}: {error}", keys=len(self._keys)
            )
        else:
            self._failed = False
            self._keys = keys
            self._fetched_at = self._clock()
            log.debug("jwks.fetched", url=self._url, keys=len(keys))
        finally:
            self._fetching = None

    async def _download(self) -> Any:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"the answer is larger than {_MAX_BYTES} bytes")
        return orjson.loads(body)


def _usable(document: Any, algorithms: tuple[str, ...]) -> Keys:
    """The keys that are fit for checking signatures, for each algorithm that goes with their type."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('not a JWKS: wanted {"keys": [...]}')
    keys: dict[tuple[str, str], PyJWK] = {}
    for entry in entries[:_MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        kid, operations = entry.get("kid", ""), entry.get("key_ops", ["verify"])
        if not isinstance(kid, str) or not isinstance(operations, list) or "verify" not in operations:
            continue
        for algorithm in algorithms:
            kty, curve = KEY_TYPES[algorithm]
            if entry.get("alg", algorithm) != algorithm or entry.get("kty") != kty:
                continue
            if curve is not None and entry.get("crv") != curve:
                continue
            try:
                key = PyJWK(entry, algorithm)
            except (PyJWTError, ValueError, TypeError):
                continue  # one bad key does not spoil the others
            if isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS:
                continue
            keys[kid, algorithm] = key
    return keys
