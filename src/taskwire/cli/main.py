"""``taskwire``: everything there is to do with a server, from starting it to following a task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from taskwire import logs
from taskwire.cli import config, demo, doctor, key, login, migrate, serve, task, team, token, user, version
from taskwire.cli.errors import DEBUG_OPTION, DEBUG_VARIABLE, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Carries long-running media work live to its end.",
)


@app.callback()
def main(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option(DEBUG_OPTION, envvar=DEBUG_VARIABLE, help="Show tracebacks and debug logs.")
    ] = False,
) -> None:
    context.obj = "debug" if debug else None
    # The commands speak for themselves; what services log on the way matters only when something is wrong.
    logs.configure("console", "debug" if debug else "error")


_COMMANDS: Mapping[str, Sequence[Callable[..., None]]] = {
    "Server": (serve.serve, demo.demo),
    "Tasks": (login.login, login.logout),
    "Accounts": (token.token,),
    "Care": (migrate.migrate, config.config, doctor.doctor, version.version),
}
_GROUPS: Mapping[str, Mapping[str, typer.Typer]] = {
    "Tasks": {"task": task.app},
    "Accounts": {"user": user.app, "team": team.app, "key": key.app},
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for panel, groups in _GROUPS.items():
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=panel)
