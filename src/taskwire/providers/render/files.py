"""Names the files of a render: known to the worker that writes them and to the pool that clears up after it."""

import contextlib
from pathlib import Path

VIDEO = "video.mp4"
THUMBNAIL = "thumbnail.jpg"


def part(directory: Path, name: str) -> Path:
    """Return the temporary name a file has while it is being written.

    It is always the same, so what a crash leaves in a directory is overwritten by the next render into it.
    """
    return directory / f".{name}.part"


def part_files(directory: Path) -> tuple[Path, ...]:
    return part(directory, VIDEO), part(directory, THUMBNAIL)


def remove_part_files(directory: Path) -> None:
    """Remove what an interrupted render left; nothing there, or no directory, is fine."""
    for path in part_files(directory):
        with contextlib.suppress(OSError):
            path.unlink()
