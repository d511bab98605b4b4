"""``taskwire demo``: a server, a few real tasks, and their progress live: the whole path, seen in half a minute."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from taskwire.cli import effective
from taskwire.cli.direct import find_user, open_accounts
from taskwire.cli.errors import INTERRUPTED, fail
from taskwire.cli.options import Json
from taskwire.cli.output import note, print_json_line
from taskwire.cli.progress import display, follow
from taskwire.cli.remote import DEFAULT_URL, TokenOption, connect
from taskwire.client.address import websocket_url
from taskwire.client.errors import Unreachable
from taskwire.client.follow import Update
from taskwire.client.rest import Rest
from taskwire.core.tasks import COMPLETED
from taskwire.settings import Settings

_FOLDER: Final = Path("taskwire-demo")
_LOG: Final = "server.log"
_STARTED: Final = '"server.started"'  # the event that the server logs when it listens
_START_TIMEOUT: Final = 60.0  # seconds until a server of our own must be ready
_STOP_TIMEOUT: Final = 15.0  # seconds it has to end in good order
_SCENES: Final = (
    ("Lighthouse", "A lighthouse at dusk, slow zoom"),
    ("Neon rain", "Rain over neon streets, seen from a tram"),
    ("Paper boats", "Paper boats on a river in spring"),
    ("Night market", "A night market from above, lanterns swaying"),
    ("Dunes", "Wind drawing lines into dunes"),
)


def demo(
    tasks: Annotated[int, typer.Option(min=1, max=20, help="How many videos to make.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each video.")] = 6,
    picture: Annotated[str, typer.Option("--size", metavar="WIDTHxHEIGHT", help="Picture size.")] = "960x540",
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of the demo's own server.")
    ] = _FOLDER,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Use a running server, instead of one of its own.")
    ] = "",
    token: TokenOption = "",
    json: Json = False,
) -> None:
    """See it work: a server, a few videos, their progress live.

    The progress shown comes over a WebSocket from the server, as it would in a browser. The videos stay in the folder.
    """
    bodies = [_body(number, seconds, picture) for number in range(tasks)]

    async def run() -> int:
        if url:
            async with connect(url, token) as rest:
                return await _show(rest, bodies, None, json=json)
        async with _own_server(data, quiet=json) as (base, made), Rest(base, made) as rest:
            return await _show(rest, bodies, data, json=json)

    try:
        code = asyncio.run(run())
    except KeyboardInterrupt:
        note("Stopped.")
        code = INTERRUPTED
    raise typer.Exit(code)


def _body(number: int, seconds: float, picture: str) -> dict[str, Any]:
    title, prompt = _SCENES[number % len(_SCENES)]
    options = {"size": picture, "seconds": int(seconds) if seconds == int(seconds) else seconds, "fps": 24}
    return {"title": title, "prompt": prompt, "options": options}


async def _show(rest: Rest, bodies: Sequence[Mapping[str, Any]], data: Path | None, *, json: bool) -> int:
    """Create the tasks, follow them, and say where their videos are."""
    made = [await rest.create_task(body) for body in bodies]
    titles = {task["id"]: task["title"] for task in made}
    assert rest.token is not None
    if not json:
        note(f"{len(made)} tasks, followed over {websocket_url(rest.url)}:\n")
    with display(titles, json=json) as shown:
        last = await follow(rest.url, rest.token, titles, shown)
    places = {task_id: _place(update, data) for task_id, update in last.items()}
    if json:
        print_json_line({"videos": list(places.values())})
    else:
        note("")
        for task_id, place in places.items():
            if place:
                typer.echo(place)
            else:
                error = last[task_id].error or {}
                note(f"{titles[task_id]}: {error.get('message', 'no video')}", style="red")
        if data is not None:
            note(f"\nGo on with `taskwire serve --demo --data {data}`.")
    return 0 if all(update.status is COMPLETED for update in last.values()) else 1


def _place(update: Update, data: Path | None) -> str:
    """Where a task's video is: the file, if the server's folder is here, else the URL; "" for none."""
    address = str((update.result or {}).get("videoUrl", ""))
    if data is None or not address:
        return address
    file = data / "media" / urlsplit(address).path.rpartition("/files/")[2]
    return str(file) if file.exists() else address


@asynccontextmanager
async def _own_server(data: Path, *, quiet: bool) -> AsyncIterator[tuple[str, str]]:
    """A server in a process of its own; gives its address and an admin's token."""
    settings = _settings(data)
    base = settings.base_url
    if not quiet:
        note(f"Starting a server at {base}; its data and log are in {data}.")
    server = _start(settings)
    try:
        await _ready(server, base, data / _LOG)
        async with open_accounts(settings, tokens=True) as accounts:
            made, _ = await accounts.issue_token((await find_user(accounts, "admin")).id)
        yield base, made
    finally:
        _stop(server)


def _settings(data: Path) -> Settings:
    """What the demo's server is started with: nothing outside its folder."""
    address = f"127.0.0.1:{_free_port()}"
    database = f"sqlite:///{data.absolute() / 'taskwire.db'}"
    return effective.load(
        demo=True,
        listen=(address,),
        public_url=f"http://{address}",
        data=data,
        database=database,
        broker="memory:",
    )


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    settings.data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "taskwire", "serve", "--demo", "--listen", settings.listen[0]]
    command += ["--data", str(settings.data), "--database", settings.database, "--broker", settings.broker]
    with (settings.data / _LOG).open("wb") as log:
        # In a session of its own: Ctrl-C is for us, and we end it in good order.
        return subprocess.Popen(  # noqa: S603  ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                **os.environ,
                "TASKWIRE_PUBLIC_URL": settings.public_url,
                "TASKWIRE_LOG_FORMAT": "json",
                "TASKWIRE_LOG_LEVEL": "info",
            },
        )


async def _ready(server: subprocess.Popen[bytes], base: str, log: Path) -> None:
    """Wait until the server takes work. Fails with the end of its log if it does not come to that."""
    deadline = time.monotonic() + _START_TIMEOUT
    async with Rest(base, timeout=5) as rest:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                break
            # What answers there could also be another server, which took the port at the same moment.
            if _STARTED in await asyncio.to_thread(log.read_text, errors="replace"):
                try:
                    if (await rest.readiness()).get("status") == "ready":
                        return
                except Unreachable:
                    pass
            await asyncio.sleep(0.05)
    fail(f"The server did not start. Its log, {log}, ends with: {_last_line(log)}")


def _last_line(log: Path) -> str:
    return next(iter(log.read_text(errors="replace").splitlines()[::-1]), "(nothing)")


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    """The usual port, or another one if that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", urlsplit(DEFAULT_URL).port or 0))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
