"""Rendered files: ``/files/{task}/{secret}/{name}``, with Range requests.

A ``<video>`` element cannot send a token, so the URL itself is the key: it holds 128 random bits, and only those who
may see the task are ever given it.
"""

import re
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse

from taskwire.api.common import services
from taskwire.core.errors import NotFound
from taskwire.core.ids import is_id

router = APIRouter(tags=["files"])

_SECRET: Final = re.compile(r"[0-9a-f]{32}")
_TYPES: Final = {"video.mp4": "video/mp4", "thumbnail.jpg": "image/jpeg"}


@router.api_route(
    "/files/{task_id}/{secret}/{name}",
    methods=["GET", "HEAD"],
    summary="A rendered file",
    include_in_schema=False,
)
async def get_file(request: Request, task_id: str, secret: str, name: str) -> Response:
    if not is_id(task_id) or _SECRET.fullmatch(secret) is None or name not in _TYPES:
        raise NotFound
    path = services(request).settings.data / "media" / task_id / secret / name
    if not path.is_file():
        raise NotFound
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Access-Control-Allow-Origin": "*",  # a page elsewhere may play what it was given the address of
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return FileResponse(path, media_type=_TYPES[name], headers=headers)
