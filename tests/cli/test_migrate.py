"""``taskwire migrate`` makes and mends databases, and says what it did."""

import json
from pathlib import Path

from tests.cli.conftest import Run, one_line


def test_migrate(run: Run, place: Path) -> None:
    assert "no database at data/taskwire.db" in one_line(run("migrate", "--check", code=1))
    first = json.loads(run("migrate", "--json").stdout)
    assert first["database"] == "sqlite:///data/taskwire.db"
    assert first["applied"]
    assert (place / "data" / "taskwire.db").exists()
    assert json.loads(run("migrate", "--json").stdout)["applied"] == []
    assert json.loads(run("migrate", "--check", "--json").stdout)["missing"] == []
    assert "is up to date" in run("migrate").stderr


def test_check_finds_what_is_missing(run: Run, place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "taskwire.db").touch()
    assert ": missing 0001" in run("migrate", "--check", code=1).stderr
    assert ": applied 0001" in run("migrate").stderr


def test_not_ours(run: Run, place: Path) -> None:
    (place / "notes.db").write_text("this is not a database at all, just text" * 100)
    said = one_line(run("migrate", "--database", "sqlite:///notes.db", "--timeout", "0", code=1))
    assert "database" in said


def test_postgres_that_is_away(run: Run) -> None:
    url = "postgresql://ada:hunter2@127.0.0.1:1/x"
    said = one_line(run("migrate", "--database", url, "--timeout", "0", code=1))
    assert "could not be reached" in said
    assert "hunter2" not in said
