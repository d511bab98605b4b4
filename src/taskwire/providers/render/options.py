"""Checks the options of a render: size, length and frame rate."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_SIZE = "1280x720"
DEFAULT_SECONDS = 5.0
DEFAULT_FPS = 24

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)
_ALLOWED = ("size", "seconds", "fps")


class InvalidOption(ValueError):
    """An option is not what was wanted; the message says what was. `field` names the option."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What may be asked for. The largest size counts either way round: 1920x1080 allows 1080x1920 as well."""

    min_side: int = 64  # pixels
    max_width: int = 1920
    max_height: int = 1080
    min_seconds: float = 0.5
    max_seconds: float = 60.0
    max_fps: int = 60


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Checked options: even `width` and `height` in pixels, `seconds` of video, `fps` frames per second."""

    width: int
    height: int
    seconds: float
    fps: int

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def frames(self) -> int:
        return frame_count(self.seconds, self.fps)


def frame_count(seconds: float, fps: int) -> int:
    """Return the number of frames of a clip, at least one."""
    return max(1, round(seconds * fps))


def parse_options(options: Mapping[str, object], limits: RenderLimits | None = None) -> RenderOptions:
    """Check `{size?: "WIDTHxHEIGHT", seconds?: number, fps?: integer}` and fill in the defaults.

    A default that exceeds a lowered limit is taken down to it. Raises InvalidOption for a value outside the limits, of
    the wrong type, or for an unknown option.
    """
    limits = limits or RenderLimits()
    for name in options:
        if name not in _ALLOWED:
            raise InvalidOption(
                str(name), f"Unknown option {str(name)!r:.80}; allowed are {', '.join(_ALLOWED)}."
            )
    width, height = _size(options["size"], limits) if "size" in options else _default_size(limits)
    return RenderOptions(
        width, height, _seconds(options.get("seconds"), limits), _fps(options.get("fps"), limits)
    )


def _fits(width: int, height: int, limits: RenderLimits) -> bool:
    longer, shorter = max(limits.max_width, limits.max_height), min(limits.max_width, limits.max_height)
    return max(width, height) <= longer and min(width, height) <= shorter


def _default_size(limits: RenderLimits) -> tuple[int, int]:
    width, height = map(int, DEFAULT_SIZE.split("x"))
    if _fits(width, height, limits):
        return width, height
    return limits.max_width // 2 * 2, limits.max_height // 2 * 2


def _size(value: object, limits: RenderLimits) -> tuple[int, int]:
    largest = f"{limits.max_width}x{limits.max_height}"
    wanted = f'WIDTHxHEIGHT in pixels, even numbers from {limits.min_side} up to {largest}, such as "{DEFAULT_SIZE}"'
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidOption("size", f"Option size must be {wanted}; got {value!r:.80}.")
    width, height = int(match[1]), int(match[2])
    if width % 2 or height % 2 or min(width, height) < limits.min_side or not _fits(width, height, limits):
        raise InvalidOption("size", f"Option size must be {wanted}; got {value!r}.")
    return width, height


def _seconds(value: object, limits: RenderLimits) -> float:
    if value is None:
        return min(DEFAULT_SECONDS, limits.max_seconds)
    low, high = limits.min_seconds, limits.max_seconds
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidOption(
            "seconds", f"Option seconds must be a number from {low:g} to {high:g}; got {value!r:.80}."
        )
    return float(value)


def _fps(value: object, limits: RenderLimits) -> int:
    if value is None:
        return min(DEFAULT_FPS, limits.max_fps)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows one kind of number: 24.0 is 24
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limits.max_fps:
        raise InvalidOption(
            "fps", f"Option fps must be a whole number from 1 to {limits.max_fps}; got {value!r:.80}."
        )
    return value
