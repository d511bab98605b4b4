"""Shows tasks as they go: live bars on a terminal, a line per step elsewhere, JSON lines for programs."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from taskwire.cli.output import console, note, plain, print_json_line, size, span
from taskwire.client.follow import Follower, Link, Update
from taskwire.client.rest import TokenSource
from taskwire.core.tasks import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, TERMINAL

_MARKS: Final = {COMPLETED: ("✓", "green"), FAILED: ("✗", "red"), CANCELLED: ("–", "yellow")}
_LINE_EVERY: Final = 10  # per cent between two lines where there is no terminal


class Display(Protocol):
    """What is shown while tasks are followed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None: ...

    def show(self, update: Update) -> None:
        """News of a task."""
        ...

    def link(self, link: Link, reason: str, wait: float) -> None:
        """News of the connection."""
        ...


def display(titles: Mapping[str, str], *, json: bool) -> Display:
    """The display that fits standard output; ``titles`` by task id."""
    if json:
        return JsonLines()
    out = console()
    return Bars(titles, out) if out.is_terminal and not out.is_dumb_terminal else Lines(titles, out)


async def follow(
    url: str, token: TokenSource, titles: Mapping[str, str], shown: Display, *, patience: float | None = None
) -> dict[str, Update]:
    """Show the tasks until all have ended; gives the last update of each, by id."""
    last: dict[str, Update] = {}
    async for update in Follower(url, token, titles, on_link=shown.link, patience=patience):
        last[update.task_id] = update
        shown.show(update)
    return last


def exit_code(last: Mapping[str, Update]) -> int:
    """0 if all are completed, 1 if any failed, else 2: some were cancelled."""
    ends = {update.status for update in last.values()}
    return 1 if FAILED in ends else 2 if CANCELLED in ends else 0


def as_json(update: Update) -> dict[str, Any]:
    """An update under the names of the REST API."""
    return {
        "id": update.task_id,
        "status": update.status,
        "progress": update.progress,
        "currentStep": update.current_step,
        "totalSteps": update.total_steps,
        "message": update.message,
        "estimatedTimeRemaining": update.eta,
        "revision": update.revision,
        "attempt": update.attempt,
        "result": update.result,
        "metrics": update.metrics,
        "error": update.error,
    }


class _Quiet:
    """A display without set-up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        pass

    def link(self, link: Link, reason: str, wait: float) -> None:
        if link is Link.WAITING:
            note(f"Connection lost ({reason}); next try in {wait:.1f} s.")


class JsonLines(_Quiet):
    """One JSON object per update, and nothing else, on standard output."""

    def show(self, update: Update) -> None:
        print_json_line(as_json(update))


class Lines(_Quiet):
    """A line per change of status and per ``_LINE_EVERY`` per cent: for log files and dumb terminals."""

    def __init__(self, titles: Mapping[str, str], out: Console) -> None:
        self._titles = titles
        self._out = out
        self._said: dict[str, tuple[Any, ...]] = {}

    def show(self, update: Update) -> None:
        step = (update.attempt, update.status, int(update.progress) // _LINE_EVERY)
        if self._said.get(update.task_id) != step:
            self._said[update.task_id] = step
            title = plain(self._titles.get(update.task_id, ""))
            name = f"{update.task_id} {title}".rstrip()
            self._out.print(
                Text(f"{name}: {update.status} {update.progress:.0f} % {_remark(update)}".rstrip())
            )


class Bars:
    """A bar per task, drawn anew a few times a second, and a line below them while there is no connection."""

    def __init__(self, titles: Mapping[str, str], out: Console) -> None:
        self._titles = titles
        self._out = out
        self._updates: dict[str, Update] = {}
        self._bars = {
            task_id: ProgressBar(total=100, complete_style="cyan", finished_style="green", pulse=True)
            for task_id in titles
        }
        self._link: tuple[Link, str, float] = (Link.CONNECTING, "", 0.0)
        self._live = Live(get_renderable=self.picture, console=out, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._link = (Link.CONNECTED, "", 0.0)
        for bar in self._bars.values():
            bar.pulse = False
        self._live.stop()

    def show(self, update: Update) -> None:
        self._updates[update.task_id] = update
        bar = self._bars[update.task_id]
        bar.pulse = update.status is QUEUED
        bar.update(float(update.progress))
        if update.finished:
            bar.complete_style = bar.finished_style = _MARKS[update.status][1]

    def link(self, link: Link, reason: str, wait: float) -> None:
        self._link = (link, reason, time.monotonic() + wait)

    def picture(self) -> RenderableType:
        """The bars as they are now; drawn by ``Live``."""
        wide = self._out.width >= 100
        table = Table.grid(padding=(0, 1))
        table.width = self._out.width - 3  # leaves room for the ^C that a terminal writes, which else wraps
        table.add_column(width=1)
        table.add_column(width=40 if wide else 20, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, min_width=8)
        table.add_column(width=5, justify="right", no_wrap=True)
        table.add_column(width=36 if wide else 26, no_wrap=True, overflow="ellipsis")
        for task_id, title in self._titles.items():
            update = self._updates.get(task_id)
            mark, style = _MARKS.get(update.status, ("", "")) if update else ("", "")
            table.add_row(
                Text(mark, style=style),
                Text(plain(title) or task_id),
                self._bars[task_id],
                f"{update.progress:.0f} %" if update else "",
                _state(update),
            )
        link, reason, at = self._link
        if link is not Link.WAITING and (link is Link.CONNECTED or not reason):
            return table
        wait = max(0.0, at - time.monotonic())
        trouble = f"No connection ({plain(reason)}); next try in {wait:.0f} s."
        return Group(table, Text(trouble, style="yellow", overflow="ellipsis", no_wrap=True))


def _state(update: Update | None) -> Text:
    """The last column of a bar: where the task stands, in a few words."""
    if update is None:
        return Text("…", style="dim")
    if update.status is PROCESSING:
        left = f"{span(float(update.eta))} left" if update.eta is not None else ""
        steps = f"{update.current_step}/{update.total_steps}" if update.total_steps else plain(update.message)
        return Text(" · ".join(filter(None, (left, steps))))
    if update.status in TERMINAL:
        return Text(_remark(update), style=_MARKS[update.status][1])
    return Text("queued" if update.attempt == 1 else f"queued, attempt {update.attempt}", style="dim")


def _remark(update: Update) -> str:
    """What there is to say beside status and progress."""
    if update.status is COMPLETED:
        result, times = update.result or {}, update.metrics or {}
        parts = [
            f"{result['duration']:g} s" if result.get("duration") else "",
            size(result["fileSize"]) if result.get("fileSize") else "",
            f"took {span(times['totalTime'])}" if times.get("totalTime") else "",
        ]
        return ", ".join(filter(None, parts))
    if update.status is CANCELLED:
        return "cancelled"
    return plain(update.message)
