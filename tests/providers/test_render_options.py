"""Render options: what is accepted, what is refused, and what the refusal says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.providers.render import InvalidOption, RenderLimits, RenderOptions, parse_options

LIMITS = RenderLimits()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, RenderOptions(1280, 720, 5.0, 24)),
        ({"size": "64x64"}, RenderOptions(64, 64, 5.0, 24)),
        ({"size": "1920x1080"}, RenderOptions(1920, 1080, 5.0, 24)),
        ({"size": "1080x1920"}, RenderOptions(1080, 1920, 5.0, 24)),
        ({"seconds": 0.5}, RenderOptions(1280, 720, 0.5, 24)),
        ({"seconds": 60}, RenderOptions(1280, 720, 60.0, 24)),
        ({"seconds": None, "fps": None}, RenderOptions(1280, 720, 5.0, 24)),
        ({"seconds": 2.75, "fps": 1}, RenderOptions(1280, 720, 2.75, 1)),
        ({"fps": 60}, RenderOptions(1280, 720, 5.0, 60)),
        ({"fps": 30.0}, RenderOptions(1280, 720, 5.0, 30)),
    ],
)
def test_accepted(options: dict[str, object], expected: RenderOptions) -> None:
    assert parse_options(options, LIMITS) == expected


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("size", "1280", "WIDTHxHEIGHT"),
        ("size", "1280X720", "WIDTHxHEIGHT"),
        ("size", " 1280x720", "WIDTHxHEIGHT"),
        ("size", "1280x720\n", "WIDTHxHEIGHT"),
        ("size", "-64x64", "WIDTHxHEIGHT"),
        ("size", "１２８x７２", "WIDTHxHEIGHT"),
        ("size", "999999999999x2", "WIDTHxHEIGHT"),
        ("size", 720, "WIDTHxHEIGHT"),
        ("size", None, "WIDTHxHEIGHT"),
        ("size", "641x360", "even"),
        ("size", "640x361", "even"),
        ("size", "62x64", "from 64"),
        ("size", "0x0", "from 64"),
        ("size", "1922x1080", "up to 1920x1080"),
        ("size", "1920x1082", "up to 1920x1080"),
        ("size", "1920x1920", "up to 1920x1080"),
        ("seconds", 0.49, "from 0.5 to 60"),
        ("seconds", 60.01, "from 0.5 to 60"),
        ("seconds", float("nan"), "a number"),
        ("seconds", float("inf"), "a number"),
        ("seconds", 10**400, "a number"),
        ("seconds", "5", "a number"),
        ("seconds", True, "a number"),
        ("fps", 0, "from 1 to 60"),
        ("fps", 61, "from 1 to 60"),
        ("fps", 23.976, "whole number"),
        ("fps", float("nan"), "whole number"),
        ("fps", "24", "whole number"),
        ("fps", True, "whole number"),
        ("colour", "red", "size, seconds, fps"),
    ],
)
def test_refused_with_what_was_wanted(field: str, value: object, wanted: str) -> None:
    with pytest.raises(InvalidOption, match=wanted) as caught:
        parse_options({field: value}, LIMITS)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


def test_lower_limits_are_said_and_bound_the_defaults() -> None:
    limits = RenderLimits(max_width=640, max_height=361, max_seconds=2, max_fps=10)
    assert parse_options({}, limits) == RenderOptions(640, 360, 2.0, 10)
    with pytest.raises(InvalidOption, match="up to 640x361"):
        parse_options({"size": "1280x720"}, limits)


def test_number_of_frames() -> None:
    assert parse_options({"seconds": 2.5, "fps": 10}).frames == 25
    assert parse_options({"seconds": 0.5, "fps": 1}).frames == 1
    assert parse_options({"size": "640x360"}).size == "640x360"


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
sizes = st.builds("{}x{}".format, st.integers(0, 4000), st.integers(0, 4000))


def outcome(options: dict[str, object]) -> RenderOptions | InvalidOption:
    try:
        return parse_options(options, LIMITS)
    except InvalidOption as error:
        return error


@given(
    st.dictionaries(
        st.sampled_from(["size", "seconds", "fps"]) | st.text(max_size=8), json_values | sizes, max_size=4
    )
)
def test_anything_is_either_within_the_limits_or_refused(options: dict[str, object]) -> None:
    parsed = outcome(options)
    if isinstance(parsed, InvalidOption):
        assert parsed.field in options
        assert len(parsed.message) < 300
        return
    assert set(options) <= {"size", "seconds", "fps"}
    assert parsed.width % 2 == 0
    assert parsed.height % 2 == 0
    assert 64 <= min(parsed.width, parsed.height) <= 1080
    assert 64 <= max(parsed.width, parsed.height) <= 1920
    assert 0.5 <= parsed.seconds <= 60
    assert 1 <= parsed.fps <= 60
    assert type(parsed.fps) is int
    assert type(parsed.seconds) is float
    assert parsed.frames >= 1
