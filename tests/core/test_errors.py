"""The error table and the tree of exceptions over it."""

import re

import pytest

from taskwire.core.errors import (
    CLOSE_CODES,
    ERRORS,
    CloseKind,
    ErrorKind,
    InvalidRequest,
    NotFound,
    TaskwireError,
    Unavailable,
)


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.code)
def test_every_row_is_complete(kind: ErrorKind) -> None:
    assert ERRORS[kind.code] is kind
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", kind.code)
    assert kind.text.endswith(".")
    assert 400 <= kind.status < 600
    assert kind.retry or kind.status < 500, "a fault of ours is worth another try"


def test_an_error_takes_its_text_from_the_table() -> None:
    error = TaskwireError("RATE_LIMITED", retry_after=2.5)
    assert (error.code, error.message, error.retryable) == ("RATE_LIMITED", ERRORS["RATE_LIMITED"].text, True)
    assert (error.kind.status, error.retry_after, error.details) == (429, 2.5, None)
    assert str(error) == error.message
    assert repr(error) == f"TaskwireError('RATE_LIMITED', {error.message!r})"


def test_a_code_that_is_not_in_the_table_cannot_be_used() -> None:
    with pytest.raises(KeyError):
        TaskwireError("SOMETHING_ELSE")


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidRequest("wanted a number"), "INVALID_REQUEST", 422),
        (InvalidRequest("wanted text", code="INVALID_MESSAGE", details={"at": 1}), "INVALID_MESSAGE", 400),
        (NotFound(), "NOT_FOUND", 404),
        (NotFound("TASK_NOT_FOUND"), "TASK_NOT_FOUND", 404),
        (Unavailable(), "UNAVAILABLE", 503),
    ],
)
def test_the_tree(error: TaskwireError, code: str, status: int) -> None:
    assert isinstance(error, TaskwireError)
    assert (error.code, error.kind.status) == (code, status)


def test_unavailable_says_when_to_ask_again() -> None:
    assert Unavailable().retry_after == 1.0
    assert Unavailable().retryable


@pytest.mark.parametrize("kind", CLOSE_CODES, ids=lambda kind: f"{kind.code}-{kind.reason}")
def test_close_codes_fit_a_close_frame(kind: CloseKind) -> None:
    """RFC 6455, 7.4: defined codes, or 4000 to 4999 for private use; the reason at most 123 bytes of UTF-8."""
    assert kind.code in (1000, 1008, 1009, 1011, 1012) or 4000 <= kind.code < 5000
    assert len(kind.reason.encode()) <= 123
    if kind.code != 1000:
        assert kind.reason


def test_one_close_code_never_says_both_reconnect_and_stop() -> None:
    said: dict[int, bool] = {}
    for kind in CLOSE_CODES:
        assert said.setdefault(kind.code, kind.reconnect) is kind.reconnect
