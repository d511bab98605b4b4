"""Reads the project's Markdown: headings, code blocks, tables, links and the marks that tests go by."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tests.support.services import ROOT

_FENCE: Final = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, its text, and what stands between it and the next block or heading."""

    language: str
    text: str
    heading: str
    before: str
    after: str


@cache
def read(path: str) -> str:
    """A file of the repository, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def documents() -> list[str]:
    """Every Markdown file of the project, by its path from the root."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "bench", "protocol", "examples"):
        found += (ROOT / folder).rglob("*.md")
    made = ("node_modules", ".cache")
    return sorted(
        str(path.relative_to(ROOT)) for path in found if not any(part in path.parts for part in made)
    )


def blocks(text: str, language: str | None = None) -> list[Block]:
    """The code blocks of a document in their order, those of one language if it is given."""
    matches = list(_FENCE.finditer(text))
    found = []
    for number, match in enumerate(matches):
        begin = matches[number - 1].end() if number else 0
        end = matches[number + 1].start() if number + 1 < len(matches) else len(text)
        titles = _HEADING.findall(prose(text[: match.start()]))
        before = re.split(r"^#.*$", text[begin : match.start()], flags=re.MULTILINE)[-1]
        after = re.split(r"^#", text[match.end() : end], flags=re.MULTILINE)[0]
        found.append(Block(match[2], match[3], titles[-1][1] if titles else "", before, after))
    return [block for block in found if language is None or block.language == language]


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _FENCE.sub("", text)


def headings(text: str, level: int) -> list[str]:
    return [title for marks, title in _HEADING.findall(prose(text)) if len(marks) == level]


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) +{re.escape(title)}$\n", text, re.MULTILINE)
    assert match, f"there is no heading {title!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a document get, as GitHub makes them."""
    found: set[str] = set()
    for _, title in _HEADING.findall(prose(text)):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", title).lower()).replace(" ", "-")
        number, unique = 0, name
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found.add(unique)
    return found


def links(text: str) -> list[str]:
    """The targets of the links of a document."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "``", prose(text)))


def rows(text: str) -> Iterator[list[str]]:
    """The rows of every table, without heads and rules, as the texts of their cells."""
    lines = prose(text).splitlines()
    for number, line in enumerate(lines):
        rule = number + 1 < len(lines) and re.fullmatch(r"\|[-:| ]+\|", lines[number + 1].strip())
        if line.startswith("|") and not rule and not re.fullmatch(r"\|[-:| ]+\|", line.strip()):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


EXACT: Final = frozenset({"code", "detail", "message", "outcome", "path", "retryable", "status"})
"""Fields whose documented value is what comes; of the others the kind is compared."""

FREE: Final = frozenset({"details", "extra"})


def differences(
    shown: Any, actual: Any, *, where: str = "", optional: frozenset[str] = frozenset(), exact: bool = True
) -> list[str]:
    """What a documented JSON value says otherwise than the actual one: fields, their kinds, and some of their values.

    ``null`` on either side fits anything, ``{}`` stands for any object, an empty list for any list. Fields named in
    ``optional`` may be missing on either side, and what is in the fields ``details`` and ``extra`` is anybody's.
    """
    if shown is None or actual is None or shown == {}:
        return []
    if isinstance(shown, dict) and isinstance(actual, dict):
        found = [
            f"{where}.{name} is not documented" for name in sorted(actual.keys() - shown.keys() - optional)
        ]
        found += [f"{where}.{name} does not come" for name in sorted(shown.keys() - actual.keys() - optional)]
        for name in (shown.keys() & actual.keys()) - FREE:
            inner = f"{where}.{name}"
            if exact and name in EXACT and isinstance(shown[name], str | int) and actual[name] is not None:
                if shown[name] != actual[name]:
                    found.append(f"{inner} is {actual[name]!r}, but {shown[name]!r} is shown")
            else:
                found += differences(shown[name], actual[name], where=inner, optional=optional, exact=exact)
        return found
    if isinstance(shown, list) and isinstance(actual, list):
        return [
            difference
            for number, (one, other) in enumerate(zip(shown, actual, strict=False))
            for difference in differences(
                one, other, where=f"{where}[{number}]", optional=optional, exact=exact
            )
        ]
    if _kind(shown) is not _kind(actual):
        return [f"{where} is {actual!r}, but {shown!r} is shown"]
    return []


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)
