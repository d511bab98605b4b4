"""Log lines have one shape, carry the ids of their context, hold no secret, and never break what they report on."""

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from taskwire import logs
from taskwire.masking import forget_secrets

SECRET = "correct-horse/battery+staple"
Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's; leave it as it was."""
    root = logging.getLogger()
    handlers, level, kept = root.handlers[:], root.level, vars(logs._output).copy()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    vars(logs._output).update(kept)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    forget_secrets()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """JSON logging is set up; gives the lines written so far."""
    logs.configure("json", "debug", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Any:
    return structlog.get_logger()


def test_a_line(lines: Lines, log: Any) -> None:
    log.info("task.created", task_id="video_1", size=3, tags=["a", 1], none=None)
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info", "event": "task.created", "task_id": "video_1", "size": 3, "tags": ["a", 1], "none": None,
    }  # fmt: skip


def test_the_first_three_fields_cannot_be_taken(stream: io.StringIO, lines: Lines, log: Any) -> None:
    log.warning("x", level="mine", timestamp="then", event="other")
    (line,) = lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["level"], line["event"], line["level_"], line["timestamp_"]) == (
        "warning",
        "x",
        "mine",
        "then",
    )


def test_level(stream: io.StringIO, log: Any) -> None:
    logs.configure("json", "warning", stream=stream)
    log.debug("a")
    log.info("b")
    logging.getLogger("x").info("c")
    assert stream.getvalue() == ""
    log.warning("d")
    log.error("e")
    log.critical("f")
    logging.getLogger("x").error("g")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["d", "e", "f", "g"]


def test_ids_of_the_context(lines: Lines, log: Any) -> None:
    async def serve(number: int) -> None:
        with logs.bind_request(f"req_{number}"), logs.bind(user="u"):
            await asyncio.sleep(0)
            log.info("one", number=number)
            logging.getLogger("library").info("two %d", number)
        log.info("after")

    async def main() -> None:
        await asyncio.gather(*map(serve, range(3)))
        logs.bind_connection("c_1")
        log.info("connected")

    asyncio.run(main())
    found = lines()
    one = {line["number"]: line["requestId"] for line in found if line["event"] == "one"}
    assert one == {0: "req_0", 1: "req_1", 2: "req_2"}
    assert {(line["event"], line["requestId"]) for line in found if line["event"].startswith("two")} == {
        ("two 0", "req_0"), ("two 1", "req_1"), ("two 2", "req_2"),
    }  # fmt: skip
    assert not any({"requestId", "user"} & line.keys() for line in found if line["event"] == "after")
    assert found[-1]["connectionId"] == "c_1"


def test_stdlib_records(lines: Lines) -> None:
    logging.getLogger("alembic.runtime").warning("Running %s -> %s", "1", "2", extra={"step": 3})
    logging.getLogger("x").log(25, "between")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    first, second, third = lines()
    assert first["event"] == "Running 1 -> 2"
    assert (first["logger"], first["level"], first["step"]) == ("alembic.runtime", "warning", 3)
    assert second["level"] == "info"
    assert third["logger"] == "py.warnings"
    assert "careful" in third["event"]


def test_uvicorn_access_is_one_event(lines: Lines) -> None:
    access = logging.getLogger("uvicorn.access")
    form = '%s - "%s %s HTTP/%s" %d'
    with logs.bind_request("req_1"):
        access.info(form, "127.0.0.1:5000", "GET", f"/ws?token={SECRET}&x=1", "1.1", 200)
    access.info(form, "127.0.0.1:5000", "GET", "/healthz?x", "1.1", 200)
    first, second = lines()
    assert first.pop("timestamp")
    assert first == {
        "level": "info", "event": "request", "method": "GET", "path": "/ws?token=***&x=1", "status": 200,
        "client": "127.0.0.1:5000", "requestId": "req_1",
    }  # fmt: skip
    assert second["level"] == "debug"


def test_uvicorn_loggers_are_taken_over(lines: Lines) -> None:
    logger = logging.getLogger("uvicorn")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.propagate = False
    logs.configure("json", stream=logs._output.stream)
    logging.getLogger("uvicorn.error").warning("Started", extra={"color_message": "\x1b[31mStarted"})
    (line,) = lines()
    assert "color_message" not in line
    assert not logger.handlers


def test_statements_of_the_database_are_not_logged(lines: Lines) -> None:
    for name in ("sqlalchemy.engine.Engine", "httpx", "websockets.client", "aiosqlite"):
        logging.getLogger(name).info("INSERT INTO users …")
    assert lines() == []


def test_exceptions(lines: Lines, log: Any) -> None:
    try:
        raise ValueError(f"no: password={SECRET}")
    except ValueError as error:
        log.exception("failed", path="/x")
        log.error("failed", exc_info=error)  # noqa: TRY400
        logging.getLogger("x").exception("failed")
    for line in lines():
        assert line["error"] == "ValueError"
        assert line["exception"].startswith("Traceback (most recent call last):")
        assert line["exception"].endswith("ValueError: no: password=***")


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("not telling")

    __str__ = __repr__


class RudeError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not telling")


class RudeMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("not telling")


class LyingField:
    __pydantic_fields__ = "x"
    __slots__ = ()


@pytest.mark.parametrize("value", [
    Rude(), RudeError(), [Rude()], {Rude(): Rude()}, RudeMapping(a=1), LyingField(), "\ud800", {"\ud800": b"\xff"},
    1 << 70, {(1, 2): 3}, float("nan"), object, lambda: 1, {1: {2: {3: {4: {5: {6: {7: {8: 9}}}}}}}}, memoryview(b"ab"),
])  # fmt: skip
@pytest.mark.parametrize("form", ["json", "console"])
def test_never_raises(stream: io.StringIO, log: Any, form: Any, value: Any) -> None:
    logs.configure(form, stream=stream)
    log.info("first", value=value)
    log.info("second %s", value)
    log.info("third %d %d", value)  # noqa: PLE1206
    log.info(value)
    log.exception("no exception")  # noqa: LOG004
    log.error("odd", exc_info=value)
    logging.getLogger("x").warning("fourth %s", value)
    logging.getLogger("x").warning("fifth %d %d", value)  # noqa: PLE1206
    logging.getLogger("x").warning(value)
    try:
        raise RudeError
    except RudeError:
        log.exception("rude")
        logging.getLogger("x").exception("rude")
    for event in ("first", "second", "third", "odd", "fourth", "fifth", "rude"):
        assert event in stream.getvalue()
    if form == "json":
        assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 11


def test_a_stream_that_is_gone(log: Any) -> None:
    closed = io.StringIO()
    logs.configure("json", stream=closed)
    closed.close()
    log.info("nobody hears this")
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    logs.configure("console", stream=narrow)
    log.info("größer")
    narrow.seek(0)
    assert "gr\\xf6\\xdfer" in narrow.read()


def test_failing_processors_leave_a_line(lines: Lines, monkeypatch: pytest.MonkeyPatch, log: Any) -> None:
    logs.register_secret(SECRET)

    def fail(*_: object) -> Any:
        raise OSError(f"broken {SECRET}")

    monkeypatch.setattr(logs, "mask_event", fail)
    log.info(f"it was {SECRET}")  # noqa: G004
    logging.getLogger("x").warning("it was %s", SECRET)
    for line in lines():
        assert line["logging_error"] == "OSError: broken ***"
        assert SECRET not in json.dumps(line)


@given(
    before=st.text(st.characters(codec="utf-8"), max_size=30),
    after=st.text(st.characters(codec="utf-8"), max_size=30),
    form=st.sampled_from(["json", "console"]),
)
def test_a_registered_secret_never_gets_out(before: str, after: str, form: Any) -> None:
    stream = io.StringIO()
    logs.configure(form, "debug", stream=stream)
    logs.register_secret(SECRET)
    log, library = structlog.get_logger(), logging.getLogger("library")
    text = before + SECRET + after
    with logs.bind(context=text):
        log.info(text)
    log.info("a %s", text)
    log.info("b", **{"key": text, SECRET: 1, "list": [text, (text,), {text}], "dict": {"k": text, text: 1}})
    log.info("c", data=text.encode(), error=KeyError(text), exception=text, exc_info=text)
    log.bind(bound=text).info("d")
    library.warning("e %s %r", text, text)
    library.warning(text, extra={"more": text})
    library.warning("f %(x)s", {"x": text})
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            error.add_note(text)
            raise RuntimeError(text) from error
    except RuntimeError:
        log.exception("g")
        library.exception("h")
    assert len(stream.getvalue()) > 500
    assert SECRET not in stream.getvalue()


def test_console(log: Any) -> None:
    stream = Terminal()
    logs.configure("auto", stream=stream)
    log.info("two\nlines \x1b[31mred", value="a\nb", nested={"a": "c\nd"})
    plain = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert stream.getvalue() != plain  # colours on a terminal
    assert plain.count("\n") == 1
    assert r"two\nlines \x1b[31mred" in plain
    assert r"value=a\nb" in plain


def test_auto_is_json_elsewhere(stream: io.StringIO, log: Any) -> None:
    logs.configure("auto", stream=stream)
    log.info("x")
    assert json.loads(stream.getvalue())["event"] == "x"


def test_standard_error_is_the_default() -> None:
    program = "import structlog; from taskwire import logs; logs.configure('json'); structlog.get_logger().info('x')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["event"] == "x"
