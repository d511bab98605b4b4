"""``taskwire doctor``: looks for what would keep the server from running well, and says how to mend it."""

import asyncio
import errno
import os
import platform
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import typer
from rich.text import Text

from taskwire.cli import effective
from taskwire.cli.config import overrides
from taskwire.cli.direct import shown, sqlite_file
from taskwire.cli.options import BrokerUrl, ConfigFile, Data, DatabaseUrl, Demo, Json, Listen
from taskwire.cli.output import console, plain, print_json, size
from taskwire.cli.version import library_versions
from taskwire.client.errors import ClientError
from taskwire.client.rest import Rest
from taskwire.core.errors import TaskwireError
from taskwire.masking import mask_text
from taskwire.services.tokens import check_provider
from taskwire.settings import Settings, is_loopback
from taskwire.store.database import Database
from taskwire.store.migrate import MigrationError, pending

_PYTHON: Final = (3, 11)
_SQLITE: Final = (3, 35, 0)  # the first with RETURNING
_DISK_WARN, _DISK_FAIL = 1_000_000_000, 100_000_000  # bytes free
_SPARE_FILES: Final = 200  # descriptors for all that is no client connection
_PATIENCE: Final = 5.0  # seconds for whoever is asked over the network
_ENCODERS: Final = ("libx264", "libopenh264")


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and how to mend it."""

    level: Level
    name: str
    found: str
    cure: str = ""


_STYLES: Final = {Level.OK: ("✓", "green"), Level.WARN: ("!", "yellow"), Level.FAIL: ("✗", "red")}


def doctor(
    demo: Demo = None,
    listen: Listen = None,
    data: Data = None,
    database: DatabaseUrl = None,
    broker: BrokerUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Check this machine and the settings.

    Exit code 1 if something must be mended. Takes the options of `serve`, to check what they would lead to. Changes
    nothing.
    """
    given = overrides(demo, listen, data, database, broker, config)
    found = asyncio.run(_examine(lambda: effective.load(**given)))
    if json:
        print_json([asdict(check) for check in found])
    else:
        _print(found)
    raise typer.Exit(1 if any(check.level is Level.FAIL for check in found) else 0)


async def _examine(load: Callable[[], Settings]) -> list[Check]:
    found = [*_python(), *_libraries(), _encoder()]
    try:
        settings = load()
    except effective.BadSettings as error:
        cure = "Mend the setting; `taskwire config` shows where each comes from."
        return [*found, *(Check(Level.FAIL, "settings", line, cure) for line in error.lines)]
    found += [*_settings(settings), _secret(settings), *_data(settings), _files(settings)]
    found += [check async for check in _database(settings)]
    found.append(await _broker(settings))
    return found + [await _port(host, port) for host, port in settings.addresses]


def _print(found: list[Check]) -> None:
    out = console()
    width = max(len(check.name) for check in found)
    for check in found:
        mark, style = _STYLES[check.level]
        line = Text(f"{mark} {check.level:<4}  ", style=style)
        line.append(f"{check.name:<{width}}  ", style="bold")
        line.append(plain(check.found))
        out.print(line, soft_wrap=True)
        if check.cure:
            out.print(Text(f"        {' ' * width}  → {plain(check.cure)}", style="dim"), soft_wrap=True)


def _python() -> Iterator[Check]:
    number = platform.python_version()
    if sys.version_info < _PYTHON:
        yield Check(Level.FAIL, "Python", number, f"Use Python {_PYTHON[0]}.{_PYTHON[1]} or later.")
    else:
        yield Check(Level.OK, "Python", number)


def _libraries() -> Iterator[Check]:
    found = library_versions()
    missing = [name for name, number in found.items() if number == "missing"]
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    if missing:
        yield Check(
            Level.FAIL, "libraries", versions, f"Install taskwire anew: {', '.join(missing)} is missing."
        )
    else:
        yield Check(Level.OK, "libraries", versions)


def _encoder() -> Check:
    try:
        import av
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        return Check(Level.FAIL, "H.264", f"PyAV cannot be loaded: {error}", "Install taskwire anew.")
    for name in _ENCODERS:
        try:
            av.Codec(name, "w")
        except (UnknownCodecError, ValueError):
            continue
        return Check(Level.OK, "H.264", f"encoder {name}")
    return Check(
        Level.WARN,
        "H.264",
        "this FFmpeg has no H.264 encoder; videos are made as MPEG-4 Part 2, which browsers do not play",
        "Install PyAV from its wheels (`pip install --only-binary av av`).",
    )


def _settings(settings: Settings) -> Iterator[Check]:
    try:
        settings.check()
        if settings.jwks_url:
            check_provider(settings.jwt_issuer, settings.jwt_audience, settings.jwt_algorithms)
    except ValueError as error:
        reason, _, cure = str(error).partition(". ")
        yield Check(Level.FAIL, "settings", reason + ".", cure)
    else:
        changed = [e for e in effective.effective(settings, {}) if e.origin.source != effective.DEFAULT]
        yield Check(Level.OK, "settings", f"valid, {len(changed)} differ from the default")
    for name, near in effective.unknown_variables().items():
        cure = f"Use {near}, or remove it." if near else "Remove it, or see docs/settings.md for the name."
        yield Check(Level.WARN, "settings", f"{name} is no setting", cure)


def _secret(settings: Settings) -> Check:
    cure = "Set TASKWIRE_SECRET, e.g. to the output of `openssl rand -base64 48`."
    if settings.secret.get_secret_value():
        return Check(Level.OK, "secret", "configured")
    if not all(is_loopback(host) for host, _ in settings.addresses):
        return Check(Level.FAIL, "secret", "not configured, though others can reach the server", cure)
    if not settings.broker.startswith("memory") or not settings.database_url.startswith("sqlite"):
        several = "not configured: several nodes would not believe each other's tokens"
        return Check(Level.WARN, "secret", several, cure)
    return Check(Level.OK, "secret", f"kept in {settings.data}, which will do on one machine")


def _data(settings: Settings) -> Iterator[Check]:
    folder = settings.data.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        cure = "Give the server's user the right to write there, or choose another --data."
        yield Check(Level.FAIL, "data folder", f"{place} cannot be written to: {error.strerror}", cure)
    else:
        note = "" if place == folder else " (will be made)"
        yield Check(Level.OK, "data folder", f"{folder}{note}")
    free = shutil.disk_usage(place).free
    level = Level.FAIL if free < _DISK_FAIL else Level.WARN if free < _DISK_WARN else Level.OK
    cure = "" if level is Level.OK else "Make room, or shorten TASKWIRE_RETENTION_TASKS."
    yield Check(level, "free disk", size(free), cure)


def _files(settings: Settings) -> Check:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _SPARE_FILES
    found = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Check(Level.OK, "open files", found)
    return Check(
        Level.WARN,
        "open files",
        f"{found}, too few for {settings.max_connections} connections",
        f"Raise the limit (`ulimit -n {wanted}`, or LimitNOFILE= in systemd), or lower TASKWIRE_MAX_CONNECTIONS.",
    )


async def _database(settings: Settings) -> AsyncIterator[Check]:
    file = sqlite_file(settings)
    if settings.database_url.startswith("sqlite"):
        level = Level.OK if sqlite3.sqlite_version_info >= _SQLITE else Level.FAIL
        cure = "" if level is Level.OK else "Use a Python that is built with SQLite 3.35 or later."
        yield Check(level, "SQLite", sqlite3.sqlite_version, cure)
    if file is not None and not file.exists():
        yield Check(Level.OK, "database", f"{file} will be made at the first start")
        return
    database = Database(settings.database_url, pool_size=1, busy_timeout=_PATIENCE)
    address = shown(database)
    try:
        async with asyncio.timeout(_PATIENCE):
            missing = await pending(database)
    except TaskwireError as error:
        cause = mask_text(str(error.__cause__ or error.message)).splitlines()[0]
        yield Check(Level.FAIL, "database", f"{address}: {cause}", "Start it, or mend TASKWIRE_DATABASE.")
    except TimeoutError:
        yield Check(
            Level.FAIL, "database", f"{address} does not answer", "Start it, or mend TASKWIRE_DATABASE."
        )
    except MigrationError as error:
        reason, _, cure = str(error).partition(". ")
        yield Check(Level.FAIL, "database", f"{address}: {reason}.", cure)
    else:
        if missing:
            cure = "Start the server, or use `taskwire migrate`."
            yield Check(Level.WARN, "database", f"{address} lacks migrations {', '.join(missing)}", cure)
        else:
            yield Check(Level.OK, "database", f"{address} is reachable and up to date")
    finally:
        await database.close()


async def _broker(settings: Settings) -> Check:
    from taskwire.brokers import create_broker

    address = mask_text(settings.broker)
    cure = "Start it, or mend TASKWIRE_BROKER."
    try:
        broker = create_broker(settings.broker)
    except (ValueError, ImportError) as error:
        return Check(
            Level.FAIL, "broker", mask_text(str(error)), "Mend TASKWIRE_BROKER; `memory:` needs nothing."
        )
    try:
        async with asyncio.timeout(_PATIENCE):
            await broker.ping()
    except TimeoutError:
        return Check(Level.FAIL, "broker", f"{address} does not answer", cure)
    except (TaskwireError, OSError) as error:
        return Check(Level.FAIL, "broker", f"{address}: {mask_text(str(error))}", cure)
    finally:
        await broker.close()
    return Check(Level.OK, "broker", address)


async def _port(host: str, port: int) -> Check:
    """Whether the server could listen there, or does."""
    name, address = "port", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                cure = (
                    "Choose another --listen."
                    if error.errno != errno.EACCES
                    else "Choose a port from 1024 up."
                )
                return Check(
                    Level.FAIL, name, f"{address}: {error.strerror or os.strerror(error.errno or 0)}", cure
                )
        else:
            return Check(Level.OK, name, f"{address} is free")
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  asked, not bound
    base = f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"
    taken = Check(
        Level.FAIL,
        name,
        f"{address} is taken by another program",
        "Stop that program, or choose another --listen.",
    )
    try:
        async with Rest(base, timeout=_PATIENCE) as rest:
            state = (await rest.readiness()).get("status")
    except ClientError:
        return taken
    if state == "ready":
        return Check(Level.OK, name, f"{address}: a server is running there and ready")
    if state in ("starting", "draining", "unavailable"):
        return Check(
            Level.WARN, name, f"{address}: a server is running there, but is {state}", "See its log."
        )
    return taken
