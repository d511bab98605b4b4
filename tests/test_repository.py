"""What holds for the files of the repository as such: locks, portability, form of the modules."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.services import ROOT

MAX_LINES = 450
LOCKS = ("base", "build", "dev")

MADE = re.compile(r"/(\.git|\.venv|node_modules|\.hypothesis|__pycache__|[^/]*cache|data)/")

# Where packages come from, and where files lie, is the business of the machine. (Written so that this file has none.)
FOREIGN = {
    "a package registry": re.compile(
        r"pypi\.(?:org|python\.org)|pythonhosted\.org|registry\.(?:npmjs|yarnpkg)|npmmirror\.com"
        r"|(?:deb|security)\.debian\.org|(?:archive|security)\.ubuntu\.com"
    ),
    "an option that names a registry": re.compile(
        r"^\s*--?(?:i|f|index-url|extra-index-url|find-links|trusted-host)[ =]", re.MULTILINE
    ),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|Users)/\w+|(?<![\w./])/(?:work|root|opt/wheels)/"),
}  # fmt: skip


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file under version control, or about to be: not ignored. Without git, every file that looks like one."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    try:
        listed = (
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        )
    except (OSError, subprocess.CalledProcessError):
        listed = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if not MADE.search(f"/{path.relative_to(ROOT)}/")
        ]
    return tuple(path for name in listed if name and (path := ROOT / name).is_file())


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode()


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_what_belongs_to_a_machine(what: str) -> None:
    found = [f"{path}: {match[0].strip()}" for path, text in texts() if (match := FOREIGN[what].search(text))]
    assert not found, f"{what} in: {found}"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry", "https://files.pythonhosted" + ".org/x.whl"),
        ("an option that names a registry", "# header\n--index" + "-url https://example.org"),
        ("a path of one machine", "see /home" + "/somebody/notes"),
    ],
)
def test_what_belongs_to_a_machine_is_recognised(what: str, text: str) -> None:
    assert FOREIGN[what].search(text)


def requirements(lock: str) -> dict[str, tuple[str, list[str]]]:
    """The requirements of a lock file: name -> (version, hashes)."""
    text = re.sub(r"\s*#.*", "", (ROOT / "requirements" / f"{lock}.txt").read_text()).replace("\\\n", " ")
    found = {}
    for line in filter(str.strip, text.splitlines()):
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})*)\s*", line)
        assert match, f"{lock}.txt: wanted name==version with hashes, but got {line!r}"
        found[match[1]] = (match[2], match[3].split())
    return found


def names(path: Path) -> set[str]:
    """The names asked for in an .in file."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {normal(line) for line in lines if line and not line.startswith("-")}


def normal(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[._-]+", "-", match[0]).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_hashes(lock: str) -> None:
    locked = requirements(lock)
    assert locked
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_is_asked_for(lock: str) -> None:
    assert names(ROOT / "requirements" / f"{lock}.in") <= set(requirements(lock))


def test_locks_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, (version, _) in requirements(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_locks_cover_other_platforms() -> None:
    # A compiled package has a wheel for each platform and Python version; one made here only would have one or two.
    assert len(requirements("base")["numpy"][1]) > 20
    assert len(requirements("dev")["mypy"][1]) > 10


def test_the_project_declares_what_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {normal(requirement) for requirement in project["dependencies"]}
    only_locked = {"async-timeout"}  # a dependency's dependency, see base.in
    assert declared == names(ROOT / "requirements" / "base.in") - only_locked


@pytest.mark.parametrize(
    "path", [path for path in tracked_files() if path.name == "package-lock.json"], ids=lambda path: path.parent.name
)  # fmt: skip
def test_the_npm_lock_has_hashes_and_no_addresses(path: Path) -> None:
    packages = json.loads(path.read_text())["packages"]
    packages.pop("")
    assert packages
    for name, package in packages.items():
        if not package.get("link"):
            assert package.get("integrity", "").startswith("sha512-"), f"{name} has no hash"
            assert "resolved" not in package, f"{name} names where it was downloaded from"


def modules() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / "src")]


def test_every_module_says_first_what_it_does() -> None:
    def says(path: Path) -> bool:
        return bool(
            (ast.get_docstring(ast.parse(path.read_bytes())) or "").strip()
        ) and path.read_text().startswith(('"""', 'r"""'))

    assert modules()
    assert [str(path.relative_to(ROOT)) for path in modules() if not says(path)] == []


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length >= MAX_LINES} == {}


def test_scripts_can_be_run() -> None:
    scripts = [path for path in tracked_files() if path.read_bytes()[:2] == b"#!"]
    assert scripts
    assert [str(path.relative_to(ROOT)) for path in scripts if not path.stat().st_mode & 0o100] == []
