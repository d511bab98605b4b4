"""What the documentation says that can be held against the code without running it."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from taskwire import __version__
from taskwire.core.errors import CLOSE_CODES, ERRORS
from taskwire.settings import Settings, env_names
from tests.support import markdown
from tests.support.services import ROOT

DOCUMENTS: Final = markdown.documents()
ERRORS_MD: Final = markdown.read("docs/errors.md")

NO_SETTINGS: Final = {"TASKWIRE_URL", "TASKWIRE_TOKEN", "TASKWIRE_DEBUG"}
"""Variables of the command line that are no settings of the server."""


def python_files() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        yield path, ast.parse(path.read_bytes())


# The documents themselves


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in markdown.links(markdown.read(document)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document} links to {target}, which is not there"
        if anchor:
            text = path.read_text(encoding="utf-8")
            assert anchor in markdown.anchors(text), f"{document} links to {target}: no such heading"


def test_every_document_is_in_the_index() -> None:
    listed = {
        str(((ROOT / "docs") / target.partition("#")[0]).resolve().relative_to(ROOT))
        for target in markdown.links(markdown.read("docs/README.md"))
    }
    wanted = {name for name in DOCUMENTS if name.startswith("docs/") and "/decisions/" not in name}
    assert wanted - {"docs/README.md"} <= listed
    assert {f"examples/{path.name}" for path in (ROOT / "examples").iterdir() if path.is_file()} <= listed


def test_every_decision_is_in_its_index_under_its_title() -> None:
    listed = dict(
        re.findall(
            r"^\| \[\d{4}\]\(([\w-]+\.md)\) \| (.+) \|$",
            markdown.read("docs/decisions/README.md"),
            re.MULTILINE,
        )
    )
    notes = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert list(listed) == notes
    for number, name in enumerate(notes, 1):
        assert markdown.read(f"docs/decisions/{name}").startswith(f"# {number:04} {listed[name]}\n")


def test_the_code_refers_to_documents_that_are_there() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"docs/[\w/.-]+\.md", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_of_code_are_well_formed(document: str) -> None:
    for block in markdown.blocks(markdown.read(document)):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, document, "exec")
        elif block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.text.encode(), check=True)
        else:
            assert block.language in ("", "console", "js", "nginx", "text", "toml"), block.language


def test_the_readme_begins_with_what_it_is_and_the_two_commands() -> None:
    screen = "\n".join(markdown.read("README.md").splitlines()[:24])
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^make (\w+)", markdown.blocks(screen, "sh")[0].text, re.MULTILINE)
    assert commands == ["run", "test"]
    assert set(commands) <= set(targets)


def test_the_changelog_is_of_this_version() -> None:
    text = markdown.read("CHANGELOG.md")
    versions = markdown.headings(text, 2)
    assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)", versions[0])
    assert versions[0].startswith(f"[{__version__}]")
    assert set(markdown.headings(text, 3)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


# Settings


def test_variables_that_are_named_are_settings() -> None:
    known = {name for field in Settings.model_fields for name in env_names(Settings, field)} | NO_SETTINGS
    for document in DOCUMENTS:
        if document.startswith("bench/"):
            continue
        named = set(re.findall(r"\b(?:TASKWIRE|WS)_[A-Z_]+\b", markdown.read(document)))
        assert named <= known, document


def test_defaults_that_are_told_are_the_defaults() -> None:
    """Such as "`drain_time` (5 s)" or "`max_page` (200)"."""
    units = {"": 1, " s": 1, " ms": 1, " min": 60, " days": 86_400}
    told = [
        (document, *match)
        for document in DOCUMENTS
        for match in re.findall(r"`(\w+)` \(([\d,]+)( s| ms| min| days|)\)", markdown.read(document))
        if match[0] in Settings.model_fields
    ]
    assert len(told) > 10
    for document, name, number, unit in told:
        value = int(number.replace(",", "")) * units[unit]
        assert Settings.model_fields[name].default == value, f"{document}: {name}"


def test_the_limits_of_the_tasks_contract_are_settings_with_these_defaults() -> None:
    found: dict[str, str] = {}
    for _, names, values in markdown.rows(
        markdown.section(markdown.read("docs/contracts/tasks.md"), "Limits")
    ):
        found.update(zip(markdown.codes(names), values.split(", "), strict=True))
    assert found
    for name, value in found.items():
        default = Settings.model_fields[name].default
        words = {f"{default:,}", f"{default / 1024:g} KiB", f"{default / 1000:g} s"}
        assert value in words, f"{name} is {default}, but {value} is told"


# Errors


def test_every_error_code_is_documented_as_it_is() -> None:
    table = {codes[0]: (status, retry) for code, status, retry, *_ in markdown.rows(
        markdown.section(ERRORS_MD, "Error codes")) if (codes := markdown.codes(code))}  # fmt: skip
    assert table == {k.code: (str(k.status), "yes" if k.retry else "no") for k in ERRORS.values()}


def test_every_close_code_is_documented_as_it_is() -> None:
    table = {
        (int(code), reason.strip("`"), reconnect == "yes")
        for code, reason, reconnect, _ in markdown.rows(markdown.section(ERRORS_MD, "Close codes"))
    }
    ours = {(kind.code, kind.reason, kind.reconnect) for kind in CLOSE_CODES}
    of_the_protocol = {(1002, "", False), (1007, "text is not UTF-8", False)}
    assert table == ours | of_the_protocol


def test_every_reason_of_a_failed_task_is_documented() -> None:
    table = {
        markdown.codes(code)[0]: retry == "yes"
        for code, retry, _ in markdown.rows(markdown.section(ERRORS_MD, "Why a task failed"))
    }
    found = dict(failures_in_the_code())
    assert found.pop("RENDERER_STOPPED")  # ends the attempt, never the task
    assert table == found


def failures_in_the_code() -> Iterator[tuple[str, bool]]:
    """The codes that the code itself makes errors of tasks with, and whether they are retryable."""
    for path, tree in python_files():
        if "cli" in path.parts or "client" in path.parts:
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name("TaskError"), args=[ast.Constant(str(code)), *rest]):
                    yield code, len(rest) > 2 and bool(ast.literal_eval(rest[2]))
                case ast.Call(
                    func=ast.Name("RenderFailed"), args=[ast.Constant(str(code)), *_], keywords=more
                ):
                    given = {word.arg: word.value for word in more}
                    yield code, bool(ast.literal_eval(given["retryable"])) if "retryable" in given else True
                case ast.Dict(keys=[ast.Constant("code"), *_], values=[ast.Constant(str(code)), *rest]) if (
                    "render" in path.parts
                ):
                    yield code, bool(ast.literal_eval(rest[-1]))


# Operations


def test_events_of_the_log_are_those_of_the_code() -> None:
    known: dict[str, str] = {}
    for _, tree in python_files():
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("log"), attr=level), args=[ast.Constant(str(event)), *_]
                ):
                    known[event] = "error" if level == "exception" else level
    told = 0
    for cells in markdown.rows(markdown.section(markdown.read("docs/operations.md"), "Logs")):
        for event in markdown.codes(cells[0]):
            assert known.get(event) == cells[1], event
            told += 1
    assert told > 10


def test_reasons_of_refusals_are_those_of_the_code() -> None:
    metrics = markdown.section(markdown.read("docs/operations.md"), "Metrics")
    told = {
        reason for cells in markdown.rows(metrics) if len(cells) == 2 for reason in markdown.codes(cells[0])
    }
    assert told == set(refusals_in_the_code())


def refusals_in_the_code() -> Iterator[str]:
    for path, tree in python_files():
        if path.name not in ("session.py", "websocket.py", "connections.py") or path.parent.name != "server":
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Attribute(attr="refused"), slice=ast.Constant(str(reason))):
                    yield reason
                case ast.Return(value=ast.Tuple(elts=[ast.Constant(int()), *_, ast.Constant(str(reason))])):
                    yield reason


# Dependencies


def test_every_dependency_has_its_line_of_why() -> None:
    told = set()
    for cells in markdown.rows(
        markdown.section(markdown.read("docs/decisions/0001-layers-and-dependencies.md"), "Dependencies")
    ):
        assert len(cells[1]) > 15
        told.update(cells[0].split(", "))
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    node = json.loads((ROOT / "package.json").read_text())
    wanted = [*project["project"]["dependencies"], *node["devDependencies"]]
    for name in ("dev", "build"):
        lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith(("#", "-"))]
    names = {re.split(r"[\[<>=~ ]", entry)[0] for entry in wanted}
    assert told == names | {"greenlet"}, "greenlet comes with sqlalchemy[asyncio]"
