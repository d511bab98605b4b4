"""``taskwire task``: create, show, list, cancel, retry and watch tasks of a running server."""

import asyncio
import json as jsonlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any

import typer

from taskwire.cli.errors import INTERRUPTED
from taskwire.cli.options import Json
from taskwire.cli.output import (
    local_time,
    note,
    print_fields,
    print_json,
    print_table,
    size,
    span,
    status_text,
)
from taskwire.cli.progress import display, exit_code, follow
from taskwire.cli.remote import DEFAULT_URL, TokenOption, UrlOption, connect
from taskwire.client.errors import Refused
from taskwire.client.rest import Rest

app = typer.Typer(help="Tasks of a running server.", no_args_is_help=True)

TaskIds = Annotated[list[str], typer.Argument(metavar="TASK_ID", help="Ids of tasks.")]
Patience = Annotated[
    float | None,
    typer.Option("--patience", metavar="SECONDS", help="Give up after so long without a connection.", min=0),
]


@app.command()
def create(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to make.")],
    provider: Annotated[
        str | None, typer.Option(help="Who makes it: `render` (the default) or `external`.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="A short name.")] = None,
    description: Annotated[str | None, typer.Option(help="A longer text.")] = None,
    picture: Annotated[
        str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="Picture size, e.g. 1280x720.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the video.")] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures per second.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another option of the provider; repeatable."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A note of your own; repeatable.")
    ] = None,
    team: Annotated[str | None, typer.Option(metavar="TEAM_ID", help="A team that may see it.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Sending the same again gives the same task.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it to its end.")] = False,
    patience: Patience = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    json: Json = False,
) -> None:
    """Hand in a task."""
    options = {
        "size": picture,
        "seconds": _number(seconds),
        "fps": _number(fps),
        **_pairs("--option", option),
    }
    body = {
        "prompt": prompt,
        "provider": provider,
        "title": title,
        "description": description,
        "options": {name: value for name, value in options.items() if value is not None},
        "metadata": _pairs("--metadata", metadata),
        "teamId": team,
    }
    body = {name: value for name, value in body.items() if value not in (None, {})}

    async def run() -> int:
        async with connect(url, token) as rest:
            task = await rest.create_task(body, idempotency_key=idempotency_key)
            if watch:
                return await _watch(rest, [task], json=json, patience=patience)
        if json:
            print_json(task)
        else:
            typer.echo(task["id"])
        return 0

    raise typer.Exit(_interruptible(run()))


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(help="Id of a task.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    json: Json = False,
) -> None:
    """Everything about one task."""

    async def run() -> dict[str, Any]:
        async with connect(url, token) as rest:
            return await rest.task(task_id)

    task = asyncio.run(run())
    if json:
        print_json(task)
    else:
        print_fields(_fields(task))


@app.command("list")
def list_(
    status: Annotated[list[str] | None, typer.Option(help="Only with this status; repeatable.")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Only of this provider; repeatable.")] = None,
    team: Annotated[str | None, typer.Option(metavar="TEAM_ID", help="Only of this team.")] = None,
    query: Annotated[str | None, typer.Option("--query", help="Text in title or prompt.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list ended.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    json: Json = False,
) -> None:
    """Tasks, newest first."""

    async def run() -> dict[str, Any]:
        async with connect(url, token) as rest:
            items: list[dict[str, Any]] = []
            following = cursor
            while True:
                page = await rest.tasks(
                    status=[name.upper() for name in status or ()] or None,
                    provider=provider,
                    teamId=team,
                    q=query,
                    limit=limit - len(items),
                    cursor=following,
                )
                items += page["items"]
                following = page["nextCursor"]
                if following is None or len(items) >= limit:
                    return {"items": items, "nextCursor": following}

    page = asyncio.run(run())
    if json:
        print_json(page)
        return
    rows = [
        (
            task["id"],
            status_text(task["status"]),
            f"{task['progress']:.0f} %",
            local_time(task["createdAt"]).rpartition("(")[2].rstrip(")"),
            task["title"] or task["prompt"],
        )
        for task in page["items"]
    ]
    if rows:
        print_table(("ID", "STATUS", "DONE", "CREATED", "TITLE"), rows, flexible="TITLE")
    else:
        note("No tasks.")
    if page["nextCursor"]:
        note(f"There are more: --cursor {page['nextCursor']}")


@app.command()
def cancel(
    task_ids: TaskIds, url: UrlOption = DEFAULT_URL, token: TokenOption = "", json: Json = False
) -> None:
    """End tasks that have not ended by themselves."""
    _each("cancel", task_ids, url, token, json=json)


@app.command()
def retry(
    task_ids: TaskIds, url: UrlOption = DEFAULT_URL, token: TokenOption = "", json: Json = False
) -> None:
    """Try failed or cancelled tasks again."""
    _each("retry", task_ids, url, token, json=json)


@app.command()
def watch(
    task_ids: TaskIds,
    patience: Patience = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    json: Json = False,
) -> None:
    """Follow tasks live to their end.

    Comes back by itself when the connection breaks. Exit code 0: all completed, 1: one failed, 2: one was cancelled,
    130: Ctrl-C (the tasks go on).
    """

    async def run() -> int:
        async with connect(url, token) as rest:
            tasks = [await rest.task(task_id) for task_id in dict.fromkeys(task_ids)]
            return await _watch(rest, tasks, json=json, patience=patience)

    raise typer.Exit(_interruptible(run()))


async def _watch(
    rest: Rest, tasks: Sequence[Mapping[str, Any]], *, json: bool, patience: float | None
) -> int:
    titles = {task["id"]: task["title"] or task["prompt"] for task in tasks}
    assert rest.token is not None
    with display(titles, json=json) as shown:
        last = await follow(rest.url, rest.token, titles, shown, patience=patience)
    for update in last.values():
        if update.error is not None and not json:
            note(f"{update.task_id}: {update.error['code']}: {update.error['message']}")
        elif update.result is not None and not json:
            typer.echo(update.result["videoUrl"])
    return exit_code(last)


def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    """Run ``work`` for its exit code; Ctrl-C ends the watching, and only that."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        note("Stopped watching; the task goes on.")
        return INTERRUPTED


def _each(action: str, task_ids: Sequence[str], url: str, token: str, *, json: bool) -> None:
    """Do one thing with several tasks; one refusal does not keep the others from being tried."""

    async def run() -> tuple[list[dict[str, Any]], int]:
        done, code = [], 0
        async with connect(url, token) as rest:
            call = rest.cancel if action == "cancel" else rest.retry
            for task_id in task_ids:
                try:
                    done.append(await call(task_id))
                except Refused as error:
                    note(f"taskwire: {task_id}: {error.message}", style="red")
                    code = 1
        return done, code

    done, code = asyncio.run(run())
    if json:
        print_json(done)
    else:
        for task in done:
            typer.echo(f"{task['id']} {task['status']}")
    raise typer.Exit(code)


def _fields(task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A task as names and values for people."""
    result, error, times = task["result"] or {}, task["error"] or {}, task["metrics"] or {}
    left = task["estimatedTimeRemaining"]
    steps = f", step {task['currentStep']} of {task['totalSteps']}" if task["totalSteps"] else ""
    return [
        ("id", task["id"]),
        ("title", task["title"]),
        ("description", task["description"]),
        ("prompt", task["prompt"]),
        ("status", status_text(task["status"])),
        ("progress", f"{task['progress']:g} %{steps}"),
        ("message", task["message"]),
        ("time left", span(left) if left else ""),
        ("error", f"{error['code']}: {error['message']}" if error else ""),
        ("video", result.get("videoUrl")),
        ("thumbnail", result.get("thumbnailUrl")),
        ("duration", f"{result['duration']:g} s" if result.get("duration") else ""),
        ("file size", size(result["fileSize"]) if result.get("fileSize") else ""),
        ("resolution", result.get("resolution")),
        ("provider", task["provider"]),
        ("options", task["options"]),
        ("metadata", task["metadata"]),
        ("owner", task["ownerId"]),
        ("team", task["teamId"]),
        ("attempt", f"{task['attempt']} (revision {task['revision']})"),
        ("created", local_time(task["createdAt"])),
        ("updated", local_time(task["updatedAt"])),
        ("finished", local_time(task["finishedAt"])),
        ("took", f"{span(times['totalTime'])}, {span(times['queueTime'])} of it queued" if times else ""),
    ]


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that is JSON (a number, true, a list …) is taken as that."""
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"wanted NAME=VALUE, but got {pair!r}", param_hint=option)
        try:
            found[name] = jsonlib.loads(text)
        except ValueError:
            found[name] = text
    return found


def _number(value: float | None) -> float | None:
    return int(value) if value is not None and value == int(value) else value
