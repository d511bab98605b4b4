"""Which contract a WebSocket request means, by its path, query and subprotocols (docs/contracts/tasks.md)."""

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

NATIVE_SUBPROTOCOL = "taskwire.v1"


def contract_of(target: str, subprotocols: Sequence[str]) -> str | None:
    """The name of the contract for a request target such as ``/ws?token=…``; None if the path is not ours."""
    try:
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return None
    path = parts.path.rstrip("/") or "/"
    if path == "/ws/tasks":
        return "tasks"
    if path == "/ws/jobs":
        return "jobs"
    if path != "/ws":
        return None
    if "EIO" in query:
        return "tasks-socketio"
    if "token" in query:
        return "jobs"
    return "native" if NATIVE_SUBPROTOCOL in subprotocols else "tasks"
