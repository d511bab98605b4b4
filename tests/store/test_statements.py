"""The named SQL statements: both databases have the same ones."""

import pytest

from taskwire.store.statements import statements


def test_both_databases_have_the_same_statements_with_the_same_parameters() -> None:
    found = {backend: statements(backend) for backend in ("sqlite", "postgresql")}
    assert set(found["sqlite"]) == set(found["postgresql"])
    assert {"task_revisions", "task_load", "task_update", "task_progress"} <= set(found["sqlite"])
    for name, statement in found["sqlite"].items():
        assert set(statement._bindparams) == set(found["postgresql"][name]._bindparams), name


def test_there_is_a_file_per_database() -> None:
    with pytest.raises(FileNotFoundError):
        statements("oracle")
