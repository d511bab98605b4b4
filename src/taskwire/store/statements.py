"""The named SQL statements of ``store/sql/``, one file per database."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from sqlalchemy import TextClause, text


@cache
def statements(backend: str) -> Mapping[str, TextClause]:
    """All statements for ``backend`` (``sqlite`` or ``postgresql``) by the name in their ``-- name:`` line."""
    source = files("taskwire.store").joinpath("sql", f"{backend}.sql").read_text(encoding="utf-8")
    found: dict[str, TextClause] = {}
    for part in source.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = text(body.strip())
    return found
