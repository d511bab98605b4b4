"""Takes secrets out of anything that is about to be written down: texts, structures, exceptions.

Three nets, one behind the other: fields whose *name* says secret; texts that *look* like one (JWTs, ``tw_`` keys,
``Bearer …``, passwords in URLs, ``token=…``); and the *very* secrets of this installation, which ``register_secret``
makes known, in the spellings they take on when encoded. Where in doubt, text is masked: a poorer log line costs less
than a key.
"""

import base64
import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote, quote_plus
from uuid import UUID

MASK: Final = "***"
MAX_TEXT: Final = 2_000
"""Characters of one value that are written."""
MAX_TRACEBACK: Final = 16_000
MAX_ITEMS: Final = 100
MAX_DEPTH: Final = 6
SHORTEST_SECRET: Final = 4
"""Shorter values are not registered: masking them would shred the log and hide nothing."""

_READ_LIMIT: Final = 50_000  # characters that are looked at; the rest of a text is dropped unread
_EDGE: Final = 8_192  # cut from the end of such a text as well: half a secret may stand there
_SHOWN_AS_TEXT: Final = (date, time, timedelta, Decimal, PurePath, UUID)

_NAME: Final = (
    r"passw(?:or)?d|passphrase|(?<![a-z])pass(?![a-z])|pwd|secret|token|authorization|api[_-]?key|cookie|credential"
    r"|signature|jwt|(?:private|access|signing|encryption)[_-]?key"
)
_SENSITIVE_NAME: Final = re.compile(_NAME, re.IGNORECASE)
# `token_lifetime`, `password-min-length`, `secretId`: named after a secret, but telling nothing of it.
_HARMLESS_NAME: Final = re.compile(
    r"_(?:lifetime|length|epoch|count|expired?|expires|expires?_(?:at|in)|expiry|type|ids?|grace|timeout|attempts|window)$"
)
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|-")

# One value after a sensitive name: quoted (also with escaped quotes), bracketed or bare, and never beyond its line. A
# comma or an ampersand ends a bare value only where the next field begins, since passwords hold such characters.
_VALUE: Final = r"""(?:
    [bru]{0,2}"(?:\\.|[^"\\\n])*+"?
  | [bru]{0,2}'(?:\\.|[^'\\\n])*+'?
  | \\++["'].*?(?:\\++["']|$)
  | [\[({][^\])}\n]*+[\])}]?
  | [&;,](?!\s|[\w.-]+=|$)
  | [^\s"'&;,\[({\])}>]
)++"""
_ASSIGNMENT: Final = re.compile(
    rf"""(?P<name>(?:{_NAME}|(?<=[?&])(?:key|sig))[\w-]{{0,40}})
    (?P<sep>\\*["']?\s*(?:=>|[=:]|%3[ad])\s*|\\*["']\s*,\s*)
    (?P<value>{_VALUE})""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
# Headers whose value may hold anything: the rest of the line goes.
_HEADER: Final = re.compile(
    r"""((?:proxy-)?authorization|(?:set-)?cookie)(\\*["']?\s*[:=]\s*|\\*["']\s*,\s*)[^\n]+""", re.IGNORECASE
)
_SCHEME: Final = re.compile(
    r"""\b(bearer|basic|digest|negotiate)(?:\s+|%20|\+)"""
    r"""(?!(?:tokens?|auth|authentication|authorization|scheme|realm)(?:[\s"',;.:)]|$))[^\s"',;]+""",
    re.IGNORECASE,
)
_USERINFO: Final = re.compile(r"""(?<=://)(?:[^\s/@"'<>]{0,100}:[^\s"'<>]{0,300}|[^\s/@"'<>]{1,300})@""")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}")
_API_KEY: Final = re.compile(r"tw_[A-Za-z0-9][A-Za-z0-9_.~+/=-]{7,}")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL
)

# A text without any of these, in lower case, matches none of the patterns above.
_TRIGGERS: Final = (
    "eyj", "tw_", "@", "pass", "pwd", "secret", "token", "key", "cookie", "auth", "bearer", "basic", "digest",
    "negotiate", "credential", "sig", "jwt",
)  # fmt: skip

_spellings: tuple[str, ...] = ()
_numbers: frozenset[str] = frozenset()  # those of them that a number might show


def register_secret(value: Any) -> None:
    """Mask ``value`` (text, bytes or pydantic's SecretStr) from now on wherever it occurs, plain or encoded.

    Encoded means: Base64 in any position of a longer text, hex, URL-encoded, JSON- or Python-escaped, HTML. Empty and
    very short values (under ``SHORTEST_SECRET`` characters) are passed over.
    """
    global _spellings, _numbers
    value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes | bytearray) else str(value)
    parts = [text, text.strip(), *(line.strip() for line in text.splitlines() if len(line.strip()) >= 16)]
    found = {spelling for part in parts if len(part) >= SHORTEST_SECRET for spelling in _spell(part)}
    if not found.issubset(_spellings):
        known = found.union(_spellings)
        _spellings = tuple(sorted(known, key=len, reverse=True))  # the longest first, so that no rest is left
        _numbers = frozenset(spelling for spelling in known if spelling.isdecimal())


def forget_secrets() -> None:
    """Drop every registered secret (for tests)."""
    global _spellings, _numbers
    _spellings, _numbers = (), frozenset()


def is_sensitive(name: object) -> bool:
    """Whether a field of this name holds a secret, e.g. ``password``, ``refreshToken``, ``X-Api-Key``."""
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return isinstance(name, str) and _sensitive(name[:200])


def mask_text(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` without secrets and cut to ``limit`` characters."""
    length = len(text)
    if length > _READ_LIMIT:
        text = text[:_READ_LIMIT]
    if _has_trigger(text) or _holds_secret(text):
        text = _masked(text)
    if length > _READ_LIMIT:
        text = text[:-_EDGE]
    return text if len(text) <= limit and length <= _READ_LIMIT else f"{text[:limit]}… ({length} characters)"


def mask_value(value: Any, depth: int = 0) -> Any:
    """``value`` as plain JSON-able data without secrets: structures part by part, other objects as their repr."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return MASK if _numbers and str(value) in _numbers else value
    if isinstance(value, str):
        return mask_text(str.__str__(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return mask_text(bytes(value[:_READ_LIMIT]).decode("utf-8", "backslashreplace"))
    if isinstance(value, BaseException):
        return mask_text(f"{type(value).__name__}: {safe_text(value, str)}")
    if hasattr(value, "get_secret_value"):
        return MASK
    if isinstance(value, _SHOWN_AS_TEXT):
        return mask_text(str(value))
    fields = _fields(value)
    if fields is None and not isinstance(value, list | tuple | set | frozenset):
        return mask_text(safe_text(value))
    if depth >= MAX_DEPTH:
        return f"<{type(value).__name__}>"
    return _mask_items(value, depth) if fields is None else _mask_fields(fields, depth)


def mask_field(name: object, value: Any, depth: int = 0) -> Any:
    """``value`` of a field called ``name``: hidden altogether where the name says so."""
    empty = value is None or isinstance(value, bool) or (isinstance(value, str | bytes) and not value)
    return MASK if not empty and is_sensitive(name) else mask_value(value, depth)


def safe_text(value: object, convert: Any = repr) -> str:
    """``repr`` (or ``str``) of anything, also of objects whose own method raises."""
    try:
        return str.__str__(convert(value))
    except Exception:  # noqa: BLE001  whatever it raises, the line must still be written
        return f"<{type(value).__name__} that cannot be shown>"


def mask_event(event: dict[str, Any]) -> dict[str, Any]:
    """A log event's fields without secrets. Ordinary ones cost 2 to 5 µs: their texts are searched as one."""
    texts: list[str] = []
    for name, value in event.items():
        kind = type(value)
        if kind is str:
            texts.append(value)
            if _sensitive(name):
                event[name] = value and MASK
        elif kind is bool or value is None or kind is float:
            pass
        elif kind is not int or _numbers or _sensitive(name):
            event[name] = mask_field(name, value)
    joined = "\n".join(texts)
    if len(joined) > MAX_TEXT or _has_trigger(joined) or _holds_secret("\n".join((joined, *event))):
        # The names are looked at for registered secrets only: `token` is what a field may well be called.
        event = {
            mask_text(name) if _holds_secret(name) else name: mask_text(value)
            if type(value) is str
            else value
            for name, value in event.items()
        }
    return event


def _spell(secret: str) -> Iterable[str]:
    """The spellings under which ``secret`` may turn up."""
    raw = secret.encode("utf-8", "surrogatepass")
    quoted, plus = quote(raw, safe=""), quote_plus(raw)
    escaped = json.dumps(secret)[1:-1]
    unescaped = json.dumps(secret, ensure_ascii=False)[1:-1]
    spellings = {
        secret, quoted, plus, quote(raw), re.sub("%..", _lower, quoted), re.sub("%..", _lower, plus),
        raw.hex(), raw.hex().upper(), escaped, unescaped, json.dumps(escaped)[1:-1], json.dumps(unescaped)[1:-1],
        repr(secret)[1:-1], repr(raw)[2:-1], ascii(secret)[1:-1], html.escape(secret),
    }  # fmt: skip
    for shift in range(3):
        # Base64 turns 3 bytes into 4 characters, so the same bytes look different at each of three positions. What
        # counts is the part that their own bits decide alone.
        code = base64.b64encode(bytes(shift) + raw).decode()
        inner = code[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        spellings |= {inner, inner.replace("+", "-").replace("/", "_")}
    return (spelling for spelling in spellings if len(spelling) >= SHORTEST_SECRET)


def _lower(match: re.Match[str]) -> str:
    return match.group().lower()


def _has_trigger(text: str) -> bool:
    return any(map(text.lower().__contains__, _TRIGGERS))


def _holds_secret(text: str) -> bool:
    return any(map(text.__contains__, _spellings))


@lru_cache(maxsize=4096)
def _sensitive(name: str) -> bool:
    return _SENSITIVE_NAME.search(name) is not None and not _harmless(name)


def _harmless(name: str) -> bool:
    return _HARMLESS_NAME.search(_WORD_START.sub("_", name).lower()) is not None


def _masked(text: str) -> str:
    for spelling in _spellings:
        if spelling in text:
            text = text.replace(spelling, MASK)
    text = _PEM.sub(MASK, text)
    text = _USERINFO.sub(f"{MASK}@", text)
    text = _JWT.sub(MASK, text)
    text = _API_KEY.sub(MASK, text)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    return _ASSIGNMENT.sub(_mask_assignment, text)


def _mask_assignment(match: re.Match[str]) -> str:
    name, sep, value = match.group("name", "sep", "value")
    if _harmless(name) or value.lower() in ("none", "null", "true", "false", '""', "''"):
        return match.group()
    quotes = value[0] if value[0] in "\"'" else ""
    return f"{name}{sep}{quotes}{MASK}{quotes}"


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The named parts of a mapping, dataclass, pydantic object or named tuple; None for anything else."""
    if isinstance(value, Mapping):
        return value
    kind = type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if hasattr(kind, "__pydantic_fields__") and not isinstance(value, type):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    names = getattr(kind, "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):
        return dict(zip(names, value, strict=False))
    return None


def _mask_fields(fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    masked: dict[str, Any] = {}
    for number, (name, value) in enumerate(fields.items()):
        if number == MAX_ITEMS:
            masked["…"] = f"{len(fields)} fields"
            break
        label = mask_value(name if isinstance(name, str | bytes | int | float) else safe_text(name))
        masked[str(label)] = mask_field(name, value, depth + 1)
    return masked


def _mask_items(value: Any, depth: int) -> list[Any]:
    items = list(islice(value, MAX_ITEMS))
    if len(items) == 2 and isinstance(items[0], str | bytes) and is_sensitive(items[0]):
        # a header, as ASGI gives it
        return [mask_value(items[0], depth + 1), mask_field(items[0], items[1], depth + 1)]
    masked = [mask_value(item, depth + 1) for item in items]
    if len(value) > MAX_ITEMS:
        masked.append(f"… ({len(value)} items)")
    return masked
