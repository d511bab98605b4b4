"""Brokers by the scheme of their URL; a new one is a file here and a line in ``BROKERS``."""

from collections.abc import Callable
from importlib import import_module

from taskwire.hub.ports import Broker

BROKERS = {
    "memory": "taskwire.brokers.memory:create",
    "redis": "taskwire.brokers.redis:create",
    "rediss": "taskwire.brokers.redis:create",
}
"""URL scheme -> "module:function", called with the URL. Modules are imported when they are asked for."""


def create_broker(url: str) -> Broker:
    """The broker for ``url``. Raises ValueError naming the schemes there are."""
    scheme = url.partition(":")[0]
    if scheme not in BROKERS:
        wanted = ", ".join(sorted(BROKERS))
        raise ValueError(f"wanted a broker URL with one of the schemes {wanted}, but got {url!r}")
    module, _, name = BROKERS[scheme].partition(":")
    factory: Callable[[str], Broker] = getattr(import_module(module), name)
    return factory(url)
