"""Follows one task to its end, with nothing but the tasks contract and a WebSocket library.

    pip install websockets
    TASKWIRE_TOKEN=… python watch_task.py VIDEO_ID [ws://127.0.0.1:3000/ws]

Exit code 0: completed, 1: failed or cancelled, 2: refused.
"""

import asyncio
import json
import os
import random
import sys
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

RECONNECT = (1006, 1011, 1012, 4008, 4029)  # close codes after which coming back is of use


async def send(socket: ClientConnection, type: str, **payload: Any) -> None:
    await socket.send(json.dumps({"type": type, "timestamp": int(time.time() * 1000), "payload": payload}))


async def watch_once(url: str, token: str, video_id: str) -> int | None:
    """Follow the task over one connection; the exit code, None if the connection ended before the task did."""
    async with connect(url) as socket:
        await send(socket, "auth", token=token)
        # No need to wait for authSuccess: messages of one connection are handled in order.
        await send(socket, "subscribe_task", videoId=video_id)
        async for text in socket:
            message = json.loads(text)
            payload = message["payload"]
            match message["type"]:
                case "taskProgress":
                    left = payload["estimatedTimeRemaining"]
                    rest = "" if left is None else f", {left:.0f} s to go"
                    print(f"{payload['status']} {payload['progress']} %{rest} {payload['message']}")
                case "taskCompleted":
                    took, result = payload["metrics"]["totalTime"], payload["result"]
                    print(f"completed in {took} s: {result['videoUrl']}")
                    return 0
                case "taskFailed":
                    print(f"failed: {payload['error']['code']}: {payload['error']['message']}")
                    return 1
                case "error":
                    print(f"error: {payload['code']}: {payload['message']}", file=sys.stderr)
                    if not payload["retryable"]:
                        return 2
    return None


async def watch(url: str, token: str, video_id: str) -> int:
    """Come back until the task has ended. Each subscription begins with the present state, so nothing is missed."""
    failures = 0
    while True:
        try:
            code = await watch_once(url, token, video_id)
            if code is not None:
                return code
            failures = 0
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code not in RECONNECT:
                print(f"closed: {closed.rcvd.code} {closed.rcvd.reason}", file=sys.stderr)
                return 2
        except InvalidStatus as refused:
            if refused.response.status_code not in (429, 503):
                raise
        except OSError as error:
            print(f"no connection: {error}", file=sys.stderr)
        failures += 1
        await asyncio.sleep(random.uniform(0, min(30, 2**failures)))


if __name__ == "__main__":
    address = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:3000/ws"
    sys.exit(asyncio.run(watch(address, os.environ["TASKWIRE_TOKEN"], sys.argv[1])))
