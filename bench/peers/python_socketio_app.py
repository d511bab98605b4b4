"""A minimal fan-out server on python-socketio: ``POST /publish?channel=…`` emits the body to the room of that name.

Runs in the peers' own environment (uvicorn, see python_socketio.py), not in Taskwire's.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import socketio  # type: ignore[import-not-found]

server = socketio.AsyncServer(async_mode="asgi")


@server.event  # type: ignore[untyped-decorator]
async def subscribe(sid: str, channel: str) -> str:
    """Join a room; the answer is the acknowledgement."""
    await server.enter_room(sid, channel)
    return "subscribed"


async def publish(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The ASGI application beside Socket.IO's path: publishes, and says that it is alive."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["method"] == "POST":
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        channel = parse_qs(scope["query_string"].decode())["channel"][0]
        await server.emit("taskProgress", json.loads(body), room=channel)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


application = socketio.ASGIApp(server, publish)
