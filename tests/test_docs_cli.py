"""docs/cli.md tells every command and every option there is, none that there is not, and its examples are right."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from taskwire.cli.main import app

TEXT: Final = (Path(__file__).resolve().parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS: Final = dict(re.findall(r"^### (taskwire .+?)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
ROOT: Final[Any] = typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command that does something, by its words."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield path, command
        for name, child in (children or {}).items():
            yield from walk(child, f"{path} {name}")

    return dict(walk(ROOT, "taskwire"))


COMMANDS: Final = commands()


def options(command: Any) -> set[str]:
    """The names of the options of a command, but for ``--help``."""
    return {
        name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    } - {"--help", "-h"}


def test_every_command_is_documented_and_no_other() -> None:
    assert SECTIONS.keys() == COMMANDS.keys()


def test_the_overview_links_to_every_group() -> None:
    anchors = set(re.findall(r"\]\(#([a-z-]+)\)", TEXT))
    known = {title.replace(" ", "-") for title in SECTIONS}
    assert anchors <= known
    for title in SECTIONS:
        *group, _ = title.split()
        assert any(anchor.startswith("-".join(group)) for anchor in anchors)


@pytest.mark.parametrize("path", COMMANDS)
def test_options(path: str) -> None:
    tables = "\n".join(line for line in SECTIONS[path].splitlines() if line.startswith("| `-"))
    documented = set(re.findall(r"`(--?[a-z][a-z-]*)", tables.replace("`--json` |", "`--json`")))
    assert documented == options(COMMANDS[path])


def test_global_options() -> None:
    for name in options(ROOT):
        assert f"`{name}`" in TEXT or f"taskwire {name}" in TEXT, name


@pytest.mark.parametrize("path", COMMANDS)
def test_examples(path: str) -> None:
    """Each command has an example, and the command line takes it."""
    found = re.findall(rf"^\$ (?:.*[ (])?{path}((?: [^)|\n]*)?)[)|\n]", SECTIONS[path], re.MULTILINE)
    assert found
    for words in found:
        with COMMANDS[path].make_context(
            path, shlex.split(words)
        ) as context:  # parses and checks, without running
            assert context.params is not None


def test_examples_use_every_option_of_serve() -> None:
    used = " ".join(re.findall(r"^\$ .*", SECTIONS["taskwire serve"], re.MULTILINE))
    assert all(name in used for name in options(COMMANDS["taskwire serve"]))
