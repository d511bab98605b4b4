"""The provider ``render``: the local renderer as a provider, with its files under the media folder."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskwire.core.errors import InvalidRequest
from taskwire.core.tasks import COMPLETED, FAILED, PROCESSING, Report, Task, TaskError, TaskResult
from taskwire.providers.render import (
    InvalidOption,
    RenderFailed,
    RenderJob,
    RenderLimits,
    RenderPool,
    RenderProgress,
    RenderResult,
    parse_options,
)
from taskwire.services.ports import ProviderConfig, SendReport, Superseded


class LocalRenderer:
    """Implements ``Provider`` and ``Runner``.

    An attempt writes into ``media/<task>/<random>/``; that random part is what makes the URL of a file unguessable.
    """

    name = "render"
    reportable = False

    def __init__(self, pool: RenderPool, media: Path, limits: RenderLimits, capacity: int) -> None:
        self._pool = pool
        self._media = media
        self._limits = limits
        self.capacity = capacity

    def check_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            checked = parse_options(options, self._limits)
        except InvalidOption as error:
            raise InvalidRequest(f"`options.{error.field}`: {error.message}") from None
        return {"size": checked.size, "seconds": checked.seconds, "fps": checked.fps}

    async def start(self) -> None:
        self._media.mkdir(parents=True, exist_ok=True)
        await self._pool.start()

    async def close(self) -> None:
        await self._pool.close()

    async def run(self, task: Task, report: SendReport) -> None:
        options = parse_options(task.spec.options, self._limits)
        attempt = task.state.attempt
        folder = secrets.token_hex(16)
        directory = self._media / task.spec.id / folder
        job = RenderJob(
            id=f"{task.spec.id}.{attempt}",
            prompt=task.spec.prompt,
            width=options.width,
            height=options.height,
            fps=options.fps,
            seconds=options.seconds,
            directory=directory,
        )
        await self._remove(self._media / task.spec.id)  # what an attempt that a crash cut off has left
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        try:
            done = await self._render(job, attempt, report)
        except RenderFailed as error:
            await self._remove(directory)
            if error.code == "RENDERER_STOPPED":
                raise Superseded from None  # the node is going down: the attempt is cut off, not failed
            reason = TaskError(error.code, error.message, error.details, error.retryable)
            await report(Report(status=FAILED, error=reason, attempt=attempt))
            return
        except BaseException:
            await asyncio.shield(self._remove(directory))
            raise
        base = f"/files/{task.spec.id}/{folder}"
        result = TaskResult(
            video_url=f"{base}/{done.video.name}",
            thumbnail_url=f"{base}/{done.thumbnail.name}",
            duration=done.duration,
            file_size=done.file_size,
            resolution=done.resolution,
            extra={"frames": done.frames, "codec": done.codec},
        )
        await report(Report(status=COMPLETED, result=result, message="Done", attempt=attempt))

    async def _render(self, job: RenderJob, attempt: int, report: SendReport) -> RenderResult:
        """Render, passing the newest progress on as fast as it can be stored, and no faster."""
        newest: RenderProgress | None = None
        news = asyncio.Event()

        def on_progress(progress: RenderProgress) -> None:
            nonlocal newest
            newest = progress
            news.set()

        async def pass_on() -> None:
            while True:
                await news.wait()
                news.clear()
                progress = newest
                assert progress is not None
                await report(
                    Report(
                        status=PROCESSING,
                        # The last per cent is the closing of the file, the thumbnail and the probe.
                        progress=99 * progress.frame / progress.frames,
                        current_step=progress.frame,
                        total_steps=progress.frames,
                        message=f"Rendering frame {progress.frame} of {progress.frames}",
                        eta=None if progress.remaining is None else round(progress.remaining, 1),
                        attempt=attempt,
                    )
                )

        rendering = asyncio.ensure_future(self._pool.render(job, on_progress))
        passing = asyncio.ensure_future(pass_on())
        try:
            await asyncio.wait([rendering, passing], return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()  # raises: the attempt is over, or the store has failed for good
            return await rendering
        finally:
            for part in (rendering, passing):
                part.cancel()
            await asyncio.gather(rendering, passing, return_exceptions=True)

    async def forget(self, task_id: str) -> None:
        await self._remove(self._media / task_id)

    async def _remove(self, directory: Path) -> None:
        def remove() -> None:
            shutil.rmtree(directory, ignore_errors=True)
            if directory.parent != self._media:
                with contextlib.suppress(OSError):  # other attempts' files may be there
                    directory.parent.rmdir()

        await asyncio.to_thread(remove)


def create(config: ProviderConfig) -> LocalRenderer:
    width, _, height = config.render_max_size.partition("x")
    limits = RenderLimits(
        max_width=int(width), max_height=int(height), max_seconds=config.render_max_seconds,
        max_fps=config.render_max_fps,
    )  # fmt: skip
    return LocalRenderer(RenderPool(config.render_workers), config.media, limits, config.render_workers)
