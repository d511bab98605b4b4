"""The local renderer: turns a prompt into a real MP4 and a thumbnail, in worker processes of its own."""

from .options import InvalidOption, RenderLimits, RenderOptions, parse_options
from .pool import RenderFailed, RenderJob, RenderPool, RenderProgress, RenderResult

__all__ = [
    "InvalidOption",
    "RenderFailed",
    "RenderJob",
    "RenderLimits",
    "RenderOptions",
    "RenderPool",
    "RenderProgress",
    "RenderResult",
    "parse_options",
]
