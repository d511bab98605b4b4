"""Databases of the store's tests, and their log."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from tests.support.store import backend, postgres_template, sqlite_template

__all__ = ["backend", "postgres_template", "sqlite_template"]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged. It is kept and not written, which for an exception with all its variables takes seconds."""
    with structlog.testing.capture_logs() as entries:
        yield entries
