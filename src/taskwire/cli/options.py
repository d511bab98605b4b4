"""Options that several commands share, and the forms their values take."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of everything kept on disk.", show_default=False),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="sqlite:///FILE or postgresql://…", show_default=False),
]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="memory: or redis://…", show_default=False)
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.", show_default=False)
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen", metavar="HOST:PORT", help="Address to listen on; repeatable.", show_default=False
    ),
]
Demo = Annotated[
    bool | None,
    typer.Option("--demo", help="Demo mode: for a look, on this machine only.", show_default=False),
]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def lifetime(text: str) -> float:
    """Seconds from now for ``30d``, ``12h``, ``90m``, ``45s``, ``2w`` or a date such as ``2027-01-31`` (UTC)."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower()):
        seconds = float(match[1]) * _UNITS[match[2]]
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                f"wanted a time such as 30d, 12h or 2027-01-31, but got {text!r}"
            ) from None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    if not 0 < seconds <= 100 * 365 * 86_400:
        raise typer.BadParameter(f"wanted a time that is still to come, but got {text!r}")
    return seconds


Expires = Annotated[
    float | None,
    typer.Option(
        "--expires",
        parser=lifetime,
        metavar="TIME",
        help="When it ends: 12h, 30d, or a date.",
        show_default=False,
    ),
]
