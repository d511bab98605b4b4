"""``taskwire serve``: run the server."""

from urllib.parse import unquote, urlsplit

import typer

from taskwire import logs
from taskwire.cli import effective
from taskwire.cli.config import overrides
from taskwire.cli.options import BrokerUrl, ConfigFile, Data, DatabaseUrl, Demo, Listen
from taskwire.cli.output import note
from taskwire.settings import Settings


def serve(
    context: typer.Context,
    demo: Demo = None,
    listen: Listen = None,
    data: Data = None,
    database: DatabaseUrl = None,
    broker: BrokerUrl = None,
    config: ConfigFile = None,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Everything else is set by environment variables, a `.env` file or a TOML file; `taskwire config` shows what is in
    effect. With nothing given it keeps all in `./data` and listens on 127.0.0.1:3000.
    """
    log_level = "debug" if context.obj == "debug" else None
    settings = effective.load(**overrides(demo, listen, data, database, broker, config), log_level=log_level)
    effective.check(settings)
    _register_secrets(settings)
    for name, near in effective.unknown_variables().items():
        note(f"taskwire: {name} is no setting{f'; is {near} meant?' if near else '.'}", style="yellow")
    # Imported here: no other command should wait for the server's libraries.
    from taskwire.server.main import run

    try:
        code = run(settings)
    except ValueError as error:  # settings that do not go together, as the services find
        raise effective.BadSettings([str(error)]) from error
    raise typer.Exit(code)


def _register_secrets(settings: Settings) -> None:
    """Have every configured secret masked in the log, wherever it turns up."""
    for secret in (settings.secret, settings.admin_password, settings.ws_auth_token):
        logs.register_secret(secret)
    for url in (settings.database, settings.broker):
        password = urlsplit(url).password or ""
        logs.register_secret(password)
        logs.register_secret(unquote(password))
