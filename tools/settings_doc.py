"""Writes the tables of docs/settings.md from the settings themselves; ``--check`` only tells if they are out of date.

The text of the file is written by hand. What stands between ``<!-- settings -->`` and ``<!-- /settings -->`` is made
here: one table per group, a group being what stands below one comment in ``src/taskwire/settings.py``.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from taskwire import settings as module
from taskwire.settings import Settings, env_names

FILE: Final = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
BEGIN: Final = "<!-- settings -->"
END: Final = "<!-- /settings -->"


def groups() -> dict[str, list[str]]:
    """The names of the settings by group, in the order of the source."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in inspect.getsource(Settings).splitlines():
        if comment := re.fullmatch(r"    # (.+)", line):
            title = comment[1]
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            found.setdefault(title, []).append(field[1])
    return found


def default(field: FieldInfo) -> str:
    """The default as it is written in a variable; "" for none."""
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def in_words(name: str, field: FieldInfo) -> str:
    """A large default in a unit that is easier to read: ``1 h`` of 3600 seconds, ``64 KiB`` of 65536 bytes; else ""."""
    value: Any = field.default
    annotation = inspect.get_annotations(Settings)[name]
    if annotation == module.Bytes:
        steps = (("MiB", 1 << 20), ("KiB", 1 << 10))
    elif float in (annotation, *get_args(annotation)) and not isinstance(value, bool):
        steps = (("d", 86_400), ("h", 3600))
    else:
        return ""
    return next(
        (f"{value // size} {unit}" for unit, size in steps if value >= size and value % size == 0), ""
    )


def tables() -> Iterator[str]:
    """The lines of all tables."""
    for title, names in groups().items():
        yield from (f"## {title}", "", "| setting | variable | default | |", "|---|---|---|---|")
        for name in names:
            field = Settings.model_fields[name]
            variables = "<br>".join(f"`{variable}`" for variable in env_names(Settings, name))
            shown = f"`{text}`" if (text := default(field)) else "–"
            words = in_words(name, field)
            meaning = field.description or ""
            if get_origin(field.annotation) is Literal:
                meaning += f" One of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
            yield f"| `{name}` | {variables} | {shown}{f' ({words})' if words else ''} | {meaning} |"
        yield ""


def document(text: str) -> str:
    """``text`` with the tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join((f"{before}{BEGIN}", "", *tables(), f"{END}{after}"))


def main() -> int:
    text = FILE.read_text(encoding="utf-8")
    made = document(text)
    if "--check" in sys.argv[1:]:
        if made != text:
            print(f"{FILE.name} is out of date: run tools/settings_doc.py", file=sys.stderr)
        return int(made != text)
    FILE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
