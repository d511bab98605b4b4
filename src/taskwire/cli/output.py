"""How answers look: JSON for programs, tables and short texts for people, and nothing that drives the terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

STATUS_STYLES: Final[Mapping[str, str]] = {
    "QUEUED": "dim",
    "PROCESSING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
}
_UNBOUNDED: Final = 2000  # columns, where no terminal limits them: a pipe must not get cut values


def console(*, stderr: bool = False) -> Console:
    """The terminal as it is now: standard output, or standard error for what is no part of the answer."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document, in lines."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_json_line(value: Any) -> None:
    """One JSON document as one line, at once."""
    typer.echo(orjson.dumps(value).decode())  # which flushes


_LEAST_FLEXIBLE = 12  # characters that are left of the column that gives way


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, flexible: str = "") -> None:
    """A table; the column called ``flexible`` gives way where the terminal is narrow, the others never do.

    What does not fit all the same runs over the edge, so that an id can always be copied whole.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    cells = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    needed = 0
    for place, name in enumerate(columns):
        content = max((row[place].cell_len for row in cells), default=0)
        least = max(len(name), min(content, _LEAST_FLEXIBLE) if name == flexible else content)
        table.add_column(name, no_wrap=True, min_width=least, overflow="ellipsis")
        needed += least + 2
    for row in cells:
        table.add_row(*row)
    out = console()
    out.width = max(out.width, needed)
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values below each other; those without a value are left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "", [], {})]
    width = max(len(name) for name, _ in shown)
    out = console()
    for name, value in shown:
        line = Text(f"{name:<{width}}  ", style="bold")
        line.append(value if isinstance(value, Text) else Text(plain(value), style="not bold"))
        out.print(line, soft_wrap=True)  # the terminal wraps, so that an address can be copied whole


def note(text: str, *, style: str = "") -> None:
    """A remark on standard error."""
    console(stderr=True).print(Text(plain(text), style=style), soft_wrap=True)


def plain(value: Any) -> str:
    """``value`` as one line of text. Other people's texts are shown: no control characters, no escape sequences."""
    if isinstance(value, Mapping | list | tuple):
        value = orjson.dumps(value, default=str).decode()
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def status_text(status: str) -> Text:
    """A task's status in its colour."""
    return Text(plain(status), style=STATUS_STYLES.get(status, ""))


def local_time(iso: str | None) -> str:
    """An ISO time of the API as local time with how long ago that was; "" for none."""
    if not iso:
        return ""
    at = datetime.fromisoformat(iso)
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago((datetime.now(UTC) - at).total_seconds())})"


def ago(seconds: float) -> str:
    """Seconds that have passed, roughly, e.g. ``3 min ago``."""
    return (
        "just now" if abs(seconds) < 1 else f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"
    )


def span(seconds: float) -> str:
    """A duration in its largest unit, e.g. ``40 s``, ``3 min``, ``5 h``, ``2 d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and unit == "min"):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def size(count: float) -> str:
    """A number of bytes, e.g. ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def from_ms(milliseconds: int | None) -> str | None:
    """A time of the store (ms since 1970) as the API writes it; None for none."""
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
