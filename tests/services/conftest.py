"""Databases of the services' tests."""

from tests.support.store import backend, postgres_template, sqlite_template

__all__ = ["backend", "postgres_template", "sqlite_template"]
