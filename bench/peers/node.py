"""The Node peers' packages: installed from ``bench/package-lock.json`` into ``bench/node_modules``."""

import json
import shutil
import subprocess
from functools import cache

from bench.peers.base import BENCH


@cache
def install() -> str:
    """Install the locked packages if they are not there. Returns what went wrong, or an empty text."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node and npm are not installed"
    lock, done = BENCH / "package-lock.json", BENCH / "node_modules" / ".package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return ""
    run = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=BENCH,
        capture_output=True,
        text=True,
    )
    return "" if run.returncode == 0 else f"npm ci failed: {run.stderr.strip()[-300:]}"


def missing(package: str) -> str:
    """Why a package cannot be used; empty if it can."""
    if reason := install():
        return reason
    return (
        "" if (BENCH / "node_modules" / package).is_dir() else f"{package} is not in bench/package-lock.json"
    )


def version(package: str) -> str:
    """``package 1.2.3 on Node v20``."""
    found = json.loads((BENCH / "node_modules" / package / "package.json").read_text())["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    return f"{package} {found} on Node {node}"
