"""Providers by name; a new one is a file here and a line in ``PROVIDERS``."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the workers of a provider import this package, too, and need none of the services
    from taskwire.services.ports import Provider, ProviderConfig

PROVIDERS = {
    "external": "taskwire.providers.external:create",
    "render": "taskwire.providers.local:create",
}
"""Name -> "module:function", called with a ``ProviderConfig``."""


def create_providers(config: "ProviderConfig") -> "dict[str, Provider]":
    """All providers, by name."""
    made: dict[str, Provider] = {}
    for name, place in PROVIDERS.items():
        module, _, function = place.partition(":")
        factory: Callable[[ProviderConfig], Provider] = getattr(import_module(module), function)
        made[name] = factory(config)
    return made
