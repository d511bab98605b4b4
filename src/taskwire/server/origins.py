"""Who is connecting: the check of a page's origin, and a client's address behind proxies that we trust."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Whether a page from ``origin`` may connect to us at ``host`` (the Host header).

    No origin means no browser, which the check is not for. Without a list, the same host and, between loopback
    addresses, any port may connect, so that a development server on the same machine works.
    """
    if origin is None or "*" in allowed:
        return True
    if allowed:
        return origin.rstrip("/").lower() in {entry.rstrip("/").lower() for entry in allowed}
    try:
        theirs, ours = urlsplit(origin).hostname, urlsplit(f"//{host or ''}").hostname
    except ValueError:
        return False
    if theirs is None or ours is None:
        return False
    return theirs == ours or (_loopback(theirs) and _loopback(ours))


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.endswith(".localhost")


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed. Raises ValueError for an entry that is no network."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(entry, strict=False) for entry in entries]

    def trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client_address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The address of the client: from the right, the first that is no trusted proxy."""
        if not self._networks or not self.trusts(peer):
            return peer
        hops = [hop.strip() for header in forwarded_for for hop in header.split(",") if hop.strip()]
        for hop in reversed(hops):
            if not self.trusts(hop):
                return hop[:64]
        return peer
