"""What is shown is one line per value, cannot drive the terminal, and reads well."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.cli.output import (
    ago,
    from_ms,
    local_time,
    plain,
    print_fields,
    print_json,
    print_json_line,
    print_table,
    size,
    span,
)


@given(st.text())
def test_other_peoples_texts_are_harmless(text: str) -> None:
    assert plain(text).isprintable()


def test_plain() -> None:
    assert plain("a\nb\tc") == "a b c"
    assert plain("\x1b[31mred") == "\N{REPLACEMENT CHARACTER}[31mred"
    assert plain(None) == ""
    assert plain({"a": [1]}) == '{"a":[1]}'


def test_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("[bold]x[/bold]", "[link=y]:smile:")])
    print_fields([("a", "[red]x"), ("b", ""), ("c", None), ("d", 0)])
    assert capsys.readouterr().out == "A               B\n[bold]x[/bold]  [link=y]:smile:\na  [red]x\nd  0\n"


def test_nothing_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 500
    print_table(("A", "B"), [(long, long)], flexible="B")
    print_fields([("a", long)])
    assert capsys.readouterr().out.count(long) == 3


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": ["ü"]})
    print_json_line({"a": 1})
    out = capsys.readouterr().out
    assert json.loads(out.rpartition("\n{")[0]) == {"a": ["ü"]}
    assert out.splitlines()[-1] == '{"a":1}'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.24, "3.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_ago() -> None:
    assert (ago(0.2), ago(90), ago(-90)) == ("just now", "2 min ago", "in 2 min")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (4e15, "4000.0 TB")]
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


def test_times() -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    shown = local_time(at.isoformat())
    assert shown.endswith("(5 min ago)")
    assert shown.startswith(f"{at.astimezone():%Y-%m-%d %H:%M:%S}")
    assert local_time(None) == ""
    assert from_ms(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert from_ms(None) is None
