"""Who is connecting: the check of a page's origin, and a client's address behind proxies that we trust."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WITH_PORT: Final = re.compile(r"(?P<v4>[0-9.]+)(?::\d+)?|\[(?P<v6>[^\]]+)\](?::\d+)?")


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Whether a page from ``origin`` may connect to us at ``host`` (the Host header).

    No origin means no browser, which the check is not for. Without a list, pages of the same host may connect, and
    those of one loopback address to another, so that a development server on the same machine works. Ports do not
    count then: a proxy may have left ours out of the header.
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
        ip = _parse(address)
        return ip is not None and any(ip in network for network in self._networks)

    def client_address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The address of the client: from the right, the first that is no trusted proxy."""
        if not self._networks or not self.trusts(peer):
            return peer
        hops = [hop.strip() for header in forwarded_for for hop in header.split(",") if hop.strip()]
        for hop in reversed(hops):
            if not self.trusts(hop):
                ip = _parse(hop)
                return hop[:64] if ip is None else str(ip)
        return peer


def _parse(hop: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that proxies write in one of several ways, some with a port: one client must stay one client."""
    match = _WITH_PORT.fullmatch(hop)
    try:
        ip = ipaddress.ip_address(hop if match is None else match["v4"] or match["v6"])
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
