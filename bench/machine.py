"""What the bench ran on: processor, kernel, limits, cores used."""

import os
import platform
from pathlib import Path

from bench.process import cores


def describe(files: int) -> list[str]:
    """A few lines of text. ``files`` is the limit of open files."""
    server, load = cores()
    lines = [
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB",
        f"{platform.system()} {platform.release()}, {_distribution()}",
        f"server on core {_list(server)}, load generator on core {_list(load)}, {files} open files",
    ]
    if server & load:
        lines.append("one core only: server and load generator share it, so latencies are not comparable")
    return lines


def _list(cores: set[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"
