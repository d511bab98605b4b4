"""``taskwire config``: the settings in effect and where each comes from."""

from typing import Annotated, Any

import typer
from rich.text import Text

from taskwire.cli import effective
from taskwire.cli.effective import DEFAULT, Effective
from taskwire.cli.options import BrokerUrl, ConfigFile, Data, DatabaseUrl, Demo, Json, Listen
from taskwire.cli.output import note, plain, print_json, print_table


def config(
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the default.")] = False,
    demo: Demo = None,
    listen: Listen = None,
    data: Data = None,
    database: DatabaseUrl = None,
    broker: BrokerUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the settings in effect and their sources.

    Secrets are masked. Takes the options of `serve`, to see what they would lead to.
    """
    given = overrides(demo, listen, data, database, broker, config)
    settings = effective.load(**given)
    found = [
        one for one in effective.effective(settings, given) if not changed or one.origin.source != DEFAULT
    ]
    if json:
        print_json(
            [
                {
                    "name": one.name,
                    "value": one.shown,
                    "source": one.origin.source,
                    "variable": one.origin.name,
                }
                for one in found
            ]
        )
    else:
        print_table(("SETTING", "VALUE", "SOURCE"), [_row(one) for one in found], flexible="VALUE")
    for name, near in effective.unknown_variables().items():
        note(f"{name} is no setting{f'; is {near} meant?' if near else '.'}", style="yellow")


def overrides(
    demo: bool | None,
    listen: list[str] | None,
    data: Any,
    database: str | None,
    broker: str | None,
    config: str | None,
) -> dict[str, Any]:
    """The options of `serve` as settings."""
    return {
        "demo": demo,
        "listen": tuple(listen) if listen else None,
        "data": data,
        "database": database,
        "broker": broker,
        "config": config,
    }


def _row(one: Effective) -> tuple[Any, ...]:
    shown = one.shown
    text = (
        ", ".join(shown)
        if isinstance(shown, list)
        else plain(str(shown).lower() if isinstance(shown, bool) else shown)
    )
    if one.origin.source == DEFAULT:
        return one.name, Text(text, style="dim"), Text(DEFAULT, style="dim")
    source = f"{one.origin.source}: {one.origin.name}"
    return one.name, text, source
