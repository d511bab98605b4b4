"""Runs a server for tests in another language: ``python -m tests.support.serve FOLDER [JSON OPTIONS]``.

Prints one line of JSON when the server is ready: ``{"url", "wsUrl", "pid", "password"}``. Then takes a command per line
on standard input, and answers each with such a line: ``kill9`` (answered with ``{}``), ``terminate`` (``{"code"}``),
``restart``, ``log`` (``{"log"}``). At the end of its input it ends the server and itself. The options are those of
``ServerProcess``.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.server import ADMIN_PASSWORD, ServerProcess


def main() -> None:
    folder = Path(sys.argv[1])
    options: dict[str, Any] = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    with ServerProcess(folder, **options) as server:
        answer(**about(server))
        for line in sys.stdin:
            answer(**obey(server, line.strip()))


def obey(server: ServerProcess, command: str) -> dict[str, Any]:
    match command:
        case "kill9":
            server.kill9()
            return {}
        case "terminate":
            return {"code": server.terminate()}
        case "restart":
            return about(server.restart())
        case "log":
            return {"log": server.log()}
    raise SystemExit(f"wanted kill9, terminate, restart or log, but got {command!r}")


def about(server: ServerProcess) -> dict[str, Any]:
    return {"url": server.url, "wsUrl": server.ws_url(""), "pid": server.pid, "password": ADMIN_PASSWORD}


def answer(**content: Any) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
