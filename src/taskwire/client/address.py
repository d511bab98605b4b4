"""Server addresses: the base URL, and what follows from it."""

import ipaddress
from urllib.parse import urlsplit, urlunsplit

from taskwire.client.errors import ClientError


def base_url(url: str) -> str:
    """``url`` without a slash at the end; ``host:port`` alone is taken as HTTP. Raises ClientError."""
    text = url.strip()
    text = text if "://" in text else f"http://{text}"
    wanted = f"Wanted the server's address, e.g. http://127.0.0.1:3000, but got {url!r}."
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the port, or of an IPv6 address
        raise ClientError(wanted) from None
    if not usable:
        raise ClientError(wanted)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def websocket_url(base: str, path: str = "/ws") -> str:
    """The WebSocket address of ``path`` at the server ``base``."""
    parts = urlsplit(base)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path + path, "", ""))


def is_local(base: str) -> bool:
    """Whether the server is this machine: then a proxy from the environment is none of its business."""
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
