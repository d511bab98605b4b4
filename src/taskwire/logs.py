"""One pipeline for every log line: ours (structlog) and the libraries' (``logging``), as JSON or for a terminal.

A line is ``{timestamp, level, event, …}``; the timestamp is ISO 8601 UTC with milliseconds. Lines written while a
request or a connection is served carry its id (``bind_request``, ``bind_connection``). Secrets are masked
(``taskwire.masking``), long values cut. Logging never raises: a line that cannot be written as asked is written as well
as can be. An ordinary JSON line costs about 10 µs before the write.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import Token
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import orjson
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars, reset_contextvars
from structlog.typing import EventDict, ProcessorReturnValue, WrappedLogger

from taskwire.masking import MAX_TRACEBACK, mask_event, mask_text, register_secret, safe_text

__all__ = ["bind", "bind_connection", "bind_request", "configure", "register_secret"]

Format = Literal["auto", "json", "console"]

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_FIRST: Final = ("timestamp", "level", "event")
_PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds, and worth a line only when debugging."""
# Libraries whose lower levels tell nothing that our own lines do not, or show what must not be shown: SQLAlchemy writes
# statements with their parameters, httpx whole URLs.
_QUIET: Final = {
    "sqlalchemy": logging.WARNING, "aiosqlite": logging.WARNING, "httpx": logging.WARNING,
    "httpcore": logging.WARNING, "websockets": logging.WARNING, "asyncio": logging.INFO, "PIL": logging.WARNING,
    "libav": logging.WARNING, "alembic": logging.WARNING, "multipart": logging.WARNING,
    "uvicorn.error": logging.WARNING,
}  # fmt: skip
_RECORD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class _Output:
    """Where lines go and how they look; the one thing that ``configure`` changes."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.level = _LEVELS["info"]
        self.console: structlog.dev.ConsoleRenderer | None = None

    def write(self, line: str) -> None:
        stream = self.stream if self.stream is not None else sys.stderr
        try:
            try:
                stream.write(line + "\n")
            except UnicodeError:
                stream.write(line.encode("ascii", "backslashreplace").decode("ascii") + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, full or gone: there is nowhere left to complain


_output: Final = _Output()


class Logger(structlog.BoundLoggerBase):
    """What ``structlog.get_logger()`` gives: ``debug`` to ``critical``, each ``(event, *args, **fields)``.

    ``args`` are put into ``event`` with ``%``, as ``logging`` does.
    """

    def debug(self, event: str, /, *args: Any, **fields: Any) -> None:
        self._say("debug", event, args, fields)

    def info(self, event: str, /, *args: Any, **fields: Any) -> None:
        self._say("info", event, args, fields)

    def warning(self, event: str, /, *args: Any, **fields: Any) -> None:
        self._say("warning", event, args, fields)

    def error(self, event: str, /, *args: Any, **fields: Any) -> None:
        self._say("error", event, args, fields)

    def exception(self, event: str, /, *args: Any, **fields: Any) -> None:
        """``error`` with the exception that is being handled."""
        self._say("error", event, args, {"exc_info": True, **fields})

    def critical(self, event: str, /, *args: Any, **fields: Any) -> None:
        self._say("critical", event, args, fields)

    def _say(self, level: str, event: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if _LEVELS[level] < _output.level:
            return
        try:
            fields = {**self._context, **fields, "event": _interpolate(event, args)}
            for processor in self._processors:
                fields = processor(self._logger, level, fields)  # type: ignore[assignment]
            self._logger.msg(fields)
        except structlog.DropEvent:
            pass
        except Exception as error:  # noqa: BLE001  logging must not break what it reports on
            _output.write(_last_resort(level, event, error))


class _StdlibHandler(logging.Handler):
    """Takes the records of ``logging`` into the same pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next(
            (name for name, number in reversed(_LEVELS.items()) if number <= record.levelno), "debug"
        )
        try:
            fields = _access_fields(record) if record.name == "uvicorn.access" else None
            if fields is None:
                fields = _record_fields(record)
            elif fields["path"].partition("?")[0] in _PROBES:
                level = "debug"
            if _LEVELS[level] >= _output.level:
                _output.write(_pipeline(level, fields))
        except Exception as error:  # noqa: BLE001  as above
            _output.write(_last_resort(level, record.msg, error))


class Bound:
    """Fields bound to the lines of the present context; ends with the ``with`` block, if used in one."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Mapping[str, Token[Any]]) -> None:
        self._tokens = tokens

    def __enter__(self) -> "Bound":
        return self

    def __exit__(self, *_: object) -> None:
        reset_contextvars(**self._tokens)


def bind(**fields: Any) -> Bound:
    """Put ``fields`` on every later line of this context (asyncio task or thread)."""
    return Bound(bind_contextvars(**fields))


def bind_request(request_id: str) -> Bound:
    """Put the request's id on every line written while it is served."""
    return bind(requestId=request_id)


def bind_connection(connection_id: str) -> Bound:
    """Put the connection's id on every line written for it.

    In callbacks of an ``asyncio.Protocol`` use it as ``with bind_connection(id):``, since uvloop runs the callbacks of
    all connections in one context.
    """
    return bind(connectionId=connection_id)


def configure(log_format: Format = "auto", level: str = "info", *, stream: TextIO | None = None) -> None:
    """Set up logging for this process; may be called again. ``stream`` None is standard error, whatever it is then.

    uvicorn must be started with ``log_config=None``, or it takes its loggers back.
    """
    out = stream if stream is not None else sys.stderr
    terminal = hasattr(out, "isatty") and out.isatty()
    console = log_format == "console" or (log_format == "auto" and terminal)
    _output.stream = stream
    _output.level = _LEVELS[level.lower()]
    _output.console = _console_renderer(colors=terminal) if console else None
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=Logger,
        logger_factory=_Sink,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    _take_over_stdlib()


class _Sink:
    """The innermost logger: what has come through the processors is written."""

    def __init__(self, *_: Any) -> None:
        pass

    def msg(self, line: Any) -> None:
        _output.write(line if isinstance(line, str) else _to_json(line))


def _take_over_stdlib() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StdlibHandler()]
    root.setLevel(_output.level)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, _output.level))


def _pipeline(level: str, fields: dict[str, Any]) -> str:
    event: Any = fields
    for processor in _PROCESSORS:
        event = processor(None, level, event)
    return str(event)


def _interpolate(event: Any, args: tuple[Any, ...]) -> str:
    """``event % args`` as ``logging`` does it; where they do not fit, both side by side."""
    text = event if isinstance(event, str) else safe_text(event, str)
    if not args:
        return text
    try:
        return text % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args)
    except Exception:  # noqa: BLE001  the arguments' own methods may raise anything
        return f"{text} {' '.join(safe_text(arg) for arg in args)}"


def _add_times_and_level(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """The three first fields, in this order; fields of the same name given by the caller move aside."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ordered: EventDict = {"timestamp": now, "level": level, "event": event.pop("event", "")}
    for name, value in event.items():
        ordered[f"{name}_" if name in _FIRST else name] = value
    return ordered


def _mask(_: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """The fields without secrets; ``exc_info`` becomes ``error`` (the type) and ``exception`` (the traceback)."""
    given = event.pop("exc_info", None)
    masked = mask_event(dict(event))
    if given is True:
        given = sys.exc_info()
    if isinstance(given, tuple) and len(given) == 3:
        given = given[1]
    if isinstance(given, BaseException):
        masked.setdefault("error", type(given).__name__)
        masked["exception"] = mask_text(_traceback(given), MAX_TRACEBACK)
    elif isinstance(given, str):
        masked["exception"] = mask_text(given, MAX_TRACEBACK)
    return masked


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001  e.g. notes that are no text
        return f"{type(error).__name__}: {safe_text(error, str)}"


def _render(logger: WrappedLogger, level: str, event: EventDict) -> ProcessorReturnValue:
    if _output.console is None:
        return _to_json(event)
    tidy = {name: _one_line(value) for name, value in event.items()}
    if isinstance(event.get("exception"), str):
        tidy["exception"] = "\n".join(map(_one_line, event["exception"].splitlines()))
    return _output.console(logger, level, tidy)


_PROCESSORS: Final[list[structlog.typing.Processor]] = [
    merge_contextvars,
    _add_times_and_level,
    _mask,
    _render,
]


def _to_json(event: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(event, default=safe_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):  # lone surrogates, integers over 64 bits
        return json.dumps(event, default=safe_text, skipkeys=True)


def _one_line(value: Any) -> Any:
    """Control characters as escapes, so that a value can neither start a line of its own nor drive the terminal."""
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return value


def _console_renderer(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=32, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


def _record_fields(record: logging.LogRecord) -> dict[str, Any]:
    args = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
    text = _interpolate(record.msg, args)
    fields: dict[str, Any] = {"event": text.strip(), "logger": record.name}
    fields |= {name: value for name, value in vars(record).items() if name not in _RECORD_FIELDS}
    if record.exc_info:
        fields["exc_info"] = record.exc_info
    elif record.exc_text:
        fields["exc_info"] = record.exc_text
    return fields


def _access_fields(record: logging.LogRecord) -> dict[str, Any] | None:
    """uvicorn's access line as one event: its arguments are (client, method, path with query, HTTP version, status)."""
    if not isinstance(record.args, tuple) or len(record.args) != 5:
        return None
    client, method, path, _version, status = record.args
    return {"event": "request", "method": method, "path": str(path), "status": status, "client": client}


def _last_resort(level: str, event: object, error: BaseException) -> str:
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "event": mask_text(safe_text(event, str)),
        "logging_error": mask_text(f"{type(error).__name__}: {safe_text(error, str)}"),
    }
    return json.dumps(line)
