"""Starts programs that never outlive the tests, and ends them by process id."""

import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support.timing import scaled


def spawn(
    command: Sequence[str | Path],
    *,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    parent_death: str = "KILL",
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; it gets the signal ``parent_death`` when the tests' process dies.

    Call it from the main thread: for the kernel, the parent is the thread. ``user`` is whom root starts it as.
    """
    before: list[str] = []
    if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
        before = [setpriv, "--pdeathsig", parent_death]
        if user:
            group = str(pwd.getpwnam(user).pw_gid)
            before += ["--reuid", user, "--regid", group, "--clear-groups"]
    elif user:
        raise RuntimeError(
            "setpriv, of Debian's package util-linux, is needed to start a program as another user"
        )
    return subprocess.Popen(
        [*before, *map(str, command)],
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent dies, however that comes about (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # of linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes], *signals: signal.Signals, patience: float = 10) -> int:
    """End ``process``: send each of ``signals`` in turn, giving it ``patience`` scaled seconds; then kill its group.

    Returns the exit code. Nothing of its process group is left behind, even if it had ended by itself.
    """
    for number in signals:
        if process.poll() is not None:
            break
        process.send_signal(number)
        try:
            process.wait(scaled(patience))
        except subprocess.TimeoutExpired:
            continue
    kill_group(process)
    return process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill everything in the process group that ``spawn`` made for ``process``, children it left behind included."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing left; macOS says the latter of zombies
        pass


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on, below those the kernel gives to outgoing connections.

    From those, a client that keeps trying to reach a stopped server could be given the server's own port, and connect
    to itself.
    """
    for _ in range(1000):
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # an old connection's TIME_WAIT does not count
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")
