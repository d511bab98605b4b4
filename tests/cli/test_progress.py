"""Progress on a terminal: bars that fit 80 and 120 columns, whatever the titles and messages are."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from taskwire.cli.progress import Bars, JsonLines, Lines, as_json, exit_code
from taskwire.client.follow import Link, Update
from taskwire.core.tasks import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED

TITLES = {
    "a": "Lighthouse",
    "b": "A title that is far too long for its column, by any measure there is",
    "c": "",
}
RUNNING = Update("a", PROCESSING, 35.4, 3, current_step=85, total_steps=240, eta=12.3)
ENDED = {
    COMPLETED: Update(
        "a", COMPLETED, 100, 9, result={"duration": 5, "fileSize": 1_234_567}, metrics={"totalTime": 9.87}
    ),
    FAILED: Update("a", FAILED, 35, 9, message="No \x1b[31mdisk", error={"code": "X", "message": "No disk"}),
    CANCELLED: Update("a", CANCELLED, 35, 9, message="gone", error={"code": "CANCELLED", "message": "gone"}),
}


def picture(width: int, change: Callable[[Bars], None], titles: Mapping[str, str] = TITLES) -> list[str]:
    """The lines that stand on a terminal of ``width`` columns after ``change``."""
    out = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False
    )
    bars = Bars(titles, out)
    bars.link(Link.CONNECTED, "", 0)
    change(bars)
    with out.capture() as captured:
        out.print(bars.picture())
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_a_line_per_task_within_the_width(width: int) -> None:
    lines = picture(width, lambda bars: bars.show(RUNNING))
    assert len(lines) == len(TITLES)
    assert all(cell_len(line) < width for line in lines)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, ["Lighthouse", "35 %", "12 s left · 85/240", "A title that is far…", "c "]),
        (120, ["Lighthouse", "35 %", "12 s left · 85/240", "A title that is far too long for its co…"]),
    ],
)
def test_what_is_seen(width: int, expected: list[str]) -> None:
    text = "\n".join(picture(width, lambda bars: bars.show(RUNNING)))
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (COMPLETED, ["✓ Lighthouse", "100 %", "5 s, 1.2 MB, took 9.9 s"]),
        (FAILED, ["✗ Lighthouse", "No \N{REPLACEMENT CHARACTER}[31mdisk"]),
        (CANCELLED, ["– Lighthouse", "cancelled"]),
    ],
)
def test_ends(status: Any, expected: list[str]) -> None:
    line = picture(80, lambda bars: bars.show(ENDED[status]))[0]
    for part in expected:
        assert part in line


def test_waiting_and_further_attempts() -> None:
    assert "queued" in picture(80, lambda bars: bars.show(Update("a", QUEUED, 0, 1)))[0]
    assert "queued, attempt 2" in picture(80, lambda bars: bars.show(Update("a", QUEUED, 0, 5, attempt=2)))[0]
    message = replace(RUNNING, total_steps=0, eta=None, message="loading the model")
    assert "loading the model" in picture(80, lambda bars: bars.show(message))[0]


def test_the_connection_is_shown_apart() -> None:
    """A lost connection changes nothing about the tasks: their bars stay, and a line tells."""

    def change(bars: Bars) -> None:
        bars.show(RUNNING)
        bars.link(Link.WAITING, "connection refused", 4.2)

    lines = picture(80, change)
    assert "35 %" in lines[0]
    assert lines[-1] == "No connection (connection refused); next try in 4 s."
    assert len(lines) == len(TITLES) + 1


@given(
    title=st.text(max_size=80),
    message=st.text(max_size=80),
    progress=st.floats(0, 100),
    eta=st.none() | st.floats(0, 1e9),
    width=st.integers(20, 200),
)
def test_anything_fits(title: str, message: str, progress: float, eta: float | None, width: int) -> None:
    update = Update("a", PROCESSING, progress, 1, message=message, eta=eta)
    lines = picture(width, lambda bars: bars.show(update), {"a": title})
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_lines_elsewhere() -> None:
    out = io.StringIO()
    lines = Lines({"a": "Lighthouse"}, Console(file=out, width=2000))
    for value in range(100):
        lines.show(Update("a", PROCESSING, value, value + 1))
    lines.show(ENDED[COMPLETED])
    said = out.getvalue().splitlines()
    assert said[0] == "a Lighthouse: PROCESSING 0 %"
    assert len(said) == 11
    assert said[-1] == "a Lighthouse: COMPLETED 100 % 5 s, 1.2 MB, took 9.9 s"


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = JsonLines()
    shown.show(RUNNING)
    shown.link(Link.WAITING, "gone", 1)
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(json.dumps(as_json(RUNNING)))
    assert said.err == "Connection lost (gone); next try in 1.0 s.\n"


def test_exit_codes() -> None:
    done, failed, cancelled = (ENDED[status] for status in (COMPLETED, FAILED, CANCELLED))
    assert exit_code({"a": done}) == 0
    assert exit_code({"a": done, "b": cancelled}) == 2
    assert exit_code({"a": done, "b": cancelled, "c": failed}) == 1


def test_start_and_stop_leave_the_last_picture() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with Bars({"a": "Lighthouse"}, console) as bars:
        bars.link(Link.CONNECTED, "", 0)
        bars.show(ENDED[COMPLETED])
    assert "✓ Lighthouse" in out.getvalue()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # the cursor is back
