"""docs/http-api.md: every route is there, and its commands, run one after the other, are answered as it shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import markdown, services
from tests.support.server import ADMIN_PASSWORD, ServerProcess, clean_environment
from tests.support.timing import eventually, scaled

TEXT: Final = markdown.read("docs/http-api.md")
ROUTES: Final = [title for title in markdown.headings(TEXT, 3) if " /" in title]

PRELUDE: Final = """
curl() { command curl --silent --show-error --noproxy '*' --max-time 60 --dump-header "$ANSWER" "$@"; }
"""


class Session:
    """A shell in which the commands of the document are run. ``keep`` marks set the variables of later ones."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self._answer = folder / "headers"
        self._env = clean_environment() | {
            "TASKWIRE_URL": server.url, "PASSWORD": ADMIN_PASSWORD, "ANSWER": str(self._answer),
        }  # fmt: skip

    def run(self, block: markdown.Block) -> tuple[int, Any]:
        """Run a block; status and body (None unless JSON) of the last answer."""
        self._answer.write_text("")
        done = subprocess.run(
            ["bash", "-euc", PRELUDE + block.text],
            env=self._env,
            capture_output=True,
            check=False,
            timeout=scaled(60),
        )
        assert done.returncode == 0, f"{block.text}\n{done.stderr.decode()}"
        status = re.findall(r"^HTTP/\S+ (\d+)", self._answer.read_text(), re.MULTILINE)
        is_json = re.search(
            r"^content-type: application/(problem\+)?json", self._answer.read_text(), re.I | re.M
        )
        body = json.loads(done.stdout) if is_json and done.stdout else None
        return int(status[-1]) if status else 0, body

    def keep(self, block: markdown.Block, body: Any) -> None:
        for name, path in re.findall(r"<!-- keep (\w+) = ([\w.]+) -->", block.after):
            self._env[name] = str(value(body, path))


def value(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body[name]
    return body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of this file; only one of them changes anything on it."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def openapi(server: ServerProcess) -> dict[str, Any]:
    with server.client(None) as client:
        document: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    return document


def test_the_commands_are_answered_as_shown(server: ServerProcess, tmp_path: Path) -> None:
    find_curl()
    session = Session(server, tmp_path)
    found = markdown.blocks(TEXT)
    commands = [
        (n, block) for n, block in enumerate(found) if block.language == "sh" and "curl " in block.text
    ]
    assert len(commands) > len(ROUTES)
    for number, block in commands:
        shown = re.match(r"\s*`(\d{3})`\s", block.after)
        assert shown, f"no status is shown for:\n{block.text}"
        if until := re.search(r"<!-- repeat until (\w+) = (\w+) -->", block.before):
            repeat(session, block, until[1], until[2])
        status, body = session.run(block)
        assert status == int(shown[1]), f"{block.text}\nanswered {status}: {body}"
        session.keep(block, body)
        answer = found[number + 1] if number + 1 < len(found) else None
        if answer is not None and answer.language == "json":
            assert body is not None, f"not JSON: {block.text}"
            assert markdown.differences(json.loads(answer.text), body) == [], block.text
            session.keep(answer, body)


def repeat(session: Session, block: markdown.Block, field: str, wanted: str) -> None:
    """Run a block until a field of its answer is as wanted."""
    eventually(lambda: value(session.run(block)[1], field) == wanted, 60, every=0.1)


def find_curl() -> None:
    """Skip without a curl that has ``--json``."""
    cure = "sudo apt-get install curl"
    if not shutil.which("curl"):
        services.missing("curl", cure)
    version = (
        subprocess.run(["curl", "--version"], capture_output=True, check=True).stdout.decode().split()[1]
    )
    if tuple(map(int, version.split(".")[:2])) < (7, 82):
        services.missing("curl 7.82 or later", cure)


def test_every_route_is_documented_and_no_other(openapi: dict[str, Any]) -> None:
    known = {f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods}
    not_in_openapi = {"GET /files/{task_id}/{secret}/{name}"}
    assert set(ROUTES) == known | not_in_openapi
    assert len(ROUTES) == len(set(ROUTES))


def test_every_route_has_a_command_of_its_method_and_path() -> None:
    for route in ROUTES:
        method, path = route.split(" ")
        commands = [block.text for block in markdown.blocks(TEXT, "sh") if block.heading == route]
        fixed = re.split(r"\{\w+\}", path)[0]
        assert (
            any(method == method_of(text) and fixed in text for text in commands)
            or "$VIDEO_URL" in commands[0]
        ), route


def method_of(command: str) -> str:
    given = re.search(r"-X (\w+)", command)
    return given[1] if given else "POST" if "--json" in command else "GET"


def test_fields_of_requests_are_documented(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    told = set(re.findall(r"`(\w+)`", markdown.prose(TEXT))) | set(re.findall(r'"(\w+)":', TEXT))
    for name in (
        "TaskIn",
        "LoginIn",
        "RefreshIn",
        "LogoutIn",
        "PasswordIn",
        "UserIn",
        "UserPatch",
        "TeamIn",
        "KeyIn",
    ):
        assert set(schemas[name]["properties"]) <= told, name
    report = openapi["paths"]["/api/v1/tasks/{task_id}/reports"]["post"]["requestBody"]["content"][
        "application/json"
    ]
    table = markdown.rows(markdown.section(TEXT, "POST /api/v1/tasks/{task_id}/reports"))
    assert {name for cells in table for name in markdown.codes(cells[0])} == set(
        report["schema"]["properties"]
    )


def test_parameters_of_lists_are_documented(openapi: dict[str, Any]) -> None:
    route = openapi["paths"]["/api/v1/tasks"]["get"]
    table = markdown.rows(markdown.section(TEXT, "GET /api/v1/tasks"))
    told = {name for cells in table for name in markdown.codes(cells[0])}
    assert told == {parameter["name"] for parameter in route["parameters"]}


def test_comparing_finds_what_differs() -> None:
    shown = {"a": 1, "code": "X", "list": [{"b": None}], "any": {}}
    assert markdown.differences(shown, {"a": 2.5, "code": "X", "list": [{"b": 1}], "any": {"c": 1}}) == []
    assert len(markdown.differences(shown, {"a": "1", "code": "Y", "list": [{}], "any": {}, "new": 1})) == 4
