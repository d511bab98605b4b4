"""The pool: real renders in worker processes that crash, hang, are cancelled, and are replaced."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from taskwire.providers.render import RenderFailed, RenderJob, RenderPool, RenderProgress, RenderResult
from taskwire.providers.render.files import THUMBNAIL, VIDEO, part
from tests.support.timing import eventually_async, scaled

pytestmark = pytest.mark.anyio
LIMIT = scaled(60)  # seconds; generous, for it only ends tests that fail

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")


def job(directory: Path, **changes: Any) -> RenderJob:
    fields = {"id": "a", "prompt": "Cats", "width": 128, "height": 72, "fps": 12, "seconds": 2.0}
    return RenderJob(directory=directory, **{**fields, **changes})


def endless(directory: Path, identity: str = "endless") -> RenderJob:
    """A job that is still running when the test has long ended."""
    return job(directory, id=identity, width=1920, height=1080, fps=60, seconds=3600)


def nothing(_: RenderProgress) -> None:
    pass


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@asynccontextmanager
async def open_pool(workers: int = 1, **settings: Any) -> AsyncIterator[RenderPool]:
    pool = RenderPool(workers, **settings)
    await pool.start()
    try:
        yield pool
    finally:
        async with asyncio.timeout(LIMIT):
            await pool.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def live_workers(pool: RenderPool) -> int:
    return len(pool.pids)


class Running:
    """A render under way, whose progress can be waited for."""

    def __init__(self, pool: RenderPool, job: RenderJob) -> None:
        self.seen: list[RenderProgress] = []
        self.encoding = asyncio.Event()
        self.task: asyncio.Task[RenderResult] = asyncio.create_task(pool.render(job, self.note))

    def note(self, progress: RenderProgress) -> None:
        self.seen.append(progress)
        if progress.frame:
            self.encoding.set()

    async def begun(self) -> None:
        async with asyncio.timeout(LIMIT):
            waiting = asyncio.create_task(self.encoding.wait())
            await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self.task  # has failed, and says why


async def test_a_render_gives_a_playable_video_and_its_measures(tmp_path: Path) -> None:
    async with open_pool() as pool:
        result = await pool.render(job(tmp_path, width=320, height=180, fps=10, seconds=1.5), nothing)
    assert result == RenderResult(
        video=tmp_path / VIDEO,
        thumbnail=tmp_path / THUMBNAIL,
        duration=1.5,
        file_size=(tmp_path / VIDEO).stat().st_size,
        width=320,
        height=180,
        frames=15,
        codec="h264",
    )
    assert result.resolution == "320x180"
    with av.open(str(result.video)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 15
    assert {(frame.width, frame.height) for frame in frames} == {(320, 180)}
    assert names(tmp_path) == [THUMBNAIL, VIDEO]


async def test_progress_starts_at_zero_rises_and_ends_at_the_last_frame(tmp_path: Path) -> None:
    async with open_pool() as pool:
        running = Running(pool, job(tmp_path, width=640, height=360, seconds=10))
        await running.task
    frames = [progress.frame for progress in running.seen]
    assert frames[:2] == [0, 1]
    assert frames[-1] == 120
    assert frames == sorted(set(frames))
    assert running.seen[0].remaining is None
    assert running.seen[-1].fraction == 1.0
    assert running.seen[-1].remaining == 0.0
    middle = running.seen[1]
    assert middle.remaining == pytest.approx((120 - middle.frame) / middle.fps)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   ",
        "一只狐狸在雪地里奔跑",
        "🦊❄️👨‍👩‍👧",
        "\ud83d",
        'quotes " and \\ and \n new lines',
        "word " * 20_000,
    ],
)
async def test_prompts_of_every_kind(tmp_path: Path, prompt: str) -> None:
    async with open_pool() as pool:
        result = await pool.render(job(tmp_path, prompt=prompt, seconds=0.5), nothing)
    assert result.frames == 6


async def test_a_prompt_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    async with open_pool() as pool:
        with pytest.raises(RenderFailed, match="at most") as caught:
            await pool.render(job(tmp_path, prompt="x" * (1 << 20)), nothing)
        assert (caught.value.code, caught.value.retryable) == ("INVALID_JOB", False)
        assert live_workers(pool) == 0


async def test_workers_start_when_needed_and_stay_warm(tmp_path: Path) -> None:
    async with open_pool(2) as pool:
        assert live_workers(pool) == 0
        await pool.render(job(tmp_path), nothing)
        (pid,) = pool.pids
        await pool.render(job(tmp_path), nothing)
        assert pool.pids == (pid,)
        await asyncio.gather(*(pool.render(job(tmp_path / str(n)), nothing) for n in range(4)))
        assert live_workers(pool) == 2
        pids = pool.pids
    assert live_workers(pool) == 0
    assert not any(map(exists, pids))


async def test_jobs_wait_in_the_order_they_came(tmp_path: Path) -> None:
    order: list[str] = []

    async def run(pool: RenderPool, name: str) -> None:
        def note(progress: RenderProgress) -> None:
            if progress.frame == 0:
                order.append(name)

        await pool.render(job(tmp_path / name, id=name, seconds=0.5), note)

    async with open_pool(1) as pool, asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(run(pool, name))
            await asyncio.sleep(0)
        assert pool.waiting == 4
        await eventually_async(lambda: len(order) == 2, 60)
        group.create_task(run(pool, "f"))
    assert order == list("abcdef")
    assert (pool.waiting, pool.running) == (0, 0)


async def test_cancelling_kills_the_worker_and_leaves_no_file(tmp_path: Path) -> None:
    async with open_pool() as pool:
        running = Running(pool, endless(tmp_path))
        await running.begun()
        (pid,) = pool.pids
        assert part(tmp_path, VIDEO).exists()
        running.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.task
        assert not exists(pid)  # already: not some time later
        assert names(tmp_path) == []
        assert (await pool.render(job(tmp_path), nothing)).frames == 24
        assert pid not in pool.pids


async def test_cancelling_twice_still_clears_up(tmp_path: Path) -> None:
    async with open_pool() as pool:
        running = Running(pool, endless(tmp_path))
        await running.begun()
        (pid,) = pool.pids
        running.task.cancel()
        await asyncio.sleep(0)
        running.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.task
        await eventually_async(lambda: not exists(pid) and names(tmp_path) == [], 60)
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


async def test_cancelling_a_waiting_job_disturbs_nobody(tmp_path: Path) -> None:
    async with open_pool() as pool:
        first = Running(pool, job(tmp_path / "1", width=640, height=360, seconds=60))
        await first.begun()
        second, third = Running(pool, job(tmp_path / "2")), Running(pool, job(tmp_path / "3"))
        await eventually_async(lambda: pool.waiting == 2, 60)
        second.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second.task
        assert pool.waiting == 1
        assert (await first.task).frames == 720
        assert (await third.task).frames == 24
        assert live_workers(pool) == 1
    assert second.seen == []


async def test_cancelling_while_the_worker_starts_leaks_no_process(tmp_path: Path) -> None:
    async with open_pool() as pool:
        for _ in range(5):
            running = Running(pool, endless(tmp_path))
            await asyncio.sleep(0)
            running.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running.task
        assert pool.running == 0
        assert (await pool.render(job(tmp_path), nothing)).frames == 24
        assert live_workers(pool) == 1


async def test_a_killed_worker_fails_its_job_and_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(2) as pool:
        other = Running(pool, job(tmp_path / "other", width=640, height=360, seconds=200))
        await other.begun()
        (healthy,) = pool.pids
        running = Running(pool, endless(tmp_path / "victim"))
        await running.begun()
        (victim,) = set(pool.pids) - {healthy}
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RenderFailed) as caught:
            await running.task
        assert (caught.value.code, caught.value.retryable) == ("RENDERER_CRASHED", True)
        assert caught.value.details == {"exitStatus": -9}
        assert names(tmp_path / "victim") == []
        assert (await pool.render(job(tmp_path), nothing)).frames == 24
        assert (await other.task).frames == 2400
    assert f"pid {victim}" in caplog.text


async def test_a_segmentation_fault_is_a_crash_with_its_stack_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool() as pool:
        running = Running(pool, endless(tmp_path))
        await running.begun()
        os.kill(pool.pids[0], signal.SIGSEGV)
        with pytest.raises(RenderFailed) as caught:
            await running.task
    assert caught.value.code == "RENDERER_CRASHED"
    assert caught.value.details == {"exitStatus": -signal.SIGSEGV}
    assert "Segmentation fault" in caplog.text


async def test_a_worker_that_died_while_idle_costs_no_job(tmp_path: Path) -> None:
    async with open_pool() as pool:
        await pool.render(job(tmp_path), nothing)
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        await eventually_async(lambda: live_workers(pool) == 0, 60)
        assert (await pool.render(job(tmp_path), nothing)).frames == 24
        assert pool.pids != (pid,)


async def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    async with open_pool(stall_timeout=scaled(4), nice=0) as pool:
        running = Running(pool, job(tmp_path, seconds=10_000))
        await running.begun()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(RenderFailed, match="no progress for") as caught:
            await running.task
        assert (caught.value.code, caught.value.retryable) == ("RENDERER_STALLED", True)
        assert not exists(pid)
        assert names(tmp_path) == []
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


async def test_a_reported_failure_keeps_the_worker(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with open_pool() as pool:
        await pool.render(job(tmp_path), nothing)
        pids = pool.pids
        with pytest.raises(RenderFailed) as caught:
            await pool.render(job(tmp_path / "file" / "below"), nothing)
        assert caught.value.code == "STORAGE_UNAVAILABLE"
        assert (await pool.render(job(tmp_path), nothing)).frames == 24
        assert pool.pids == pids


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="the system has no /dev/full")
async def test_a_full_disk(tmp_path: Path) -> None:
    part(tmp_path, VIDEO).symlink_to("/dev/full")
    async with open_pool() as pool:
        with pytest.raises(RenderFailed) as caught:
            await pool.render(job(tmp_path), nothing)
    assert (caught.value.code, caught.value.retryable) == ("STORAGE_FULL", True)
    assert names(tmp_path) == []


async def test_an_error_in_the_callback_stops_the_render(tmp_path: Path) -> None:
    def fail(progress: RenderProgress) -> None:
        if progress.frame:
            raise LookupError("from the callback")

    async with open_pool() as pool:
        with pytest.raises(LookupError, match="from the callback"):
            await pool.render(endless(tmp_path), fail)
        assert names(tmp_path) == []
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


async def test_closing_ends_running_and_waiting_jobs_and_the_pool_can_be_opened_again(tmp_path: Path) -> None:
    async with open_pool() as pool:
        running = Running(pool, endless(tmp_path / "1"))
        await running.begun()
        waiting = Running(pool, endless(tmp_path / "2"))
        await eventually_async(lambda: pool.waiting == 1, 60)
        (pid,) = pool.pids
        async with asyncio.timeout(LIMIT):
            await pool.close()
        assert not exists(pid)
        for task in (running.task, waiting.task, asyncio.create_task(pool.render(job(tmp_path), nothing))):
            with pytest.raises(RenderFailed) as caught:
                await task
            assert (caught.value.code, caught.value.retryable) == ("RENDERER_STOPPED", True)
        assert names(tmp_path / "1") == []
        await pool.start()
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


async def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pool() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "no-python-here"))
            with pytest.raises(RenderFailed) as caught:
                await pool.render(job(tmp_path), nothing)
        assert (caught.value.code, caught.value.retryable) == ("RENDERER_UNAVAILABLE", True)
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


@pytest.mark.parametrize(
    "output",
    [
        "x" * 100_000,
        "not json",
        '{"event": "ready"}\n{"event": "completed", "id": "another"}',
        '{"event": "surprise", "id": "a"}',
        "[]",
    ],
)
async def test_a_worker_that_makes_no_sense_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    script = tmp_path / "python"
    (tmp_path / "output").write_text(output + "\n")
    script.write_text(f"#!/bin/sh\ncat '{tmp_path}/output'\nexec sleep 600\n")
    script.chmod(0o700)
    async with open_pool() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(script))
            with pytest.raises(RenderFailed) as caught:
                await pool.render(job(tmp_path), nothing)
        assert caught.value.code == "RENDERER_CRASHED"
        assert (await pool.render(job(tmp_path), nothing)).frames == 24


async def test_the_loop_stays_free_while_rendering(tmp_path: Path) -> None:
    async with open_pool() as pool:
        running = Running(pool, job(tmp_path, width=640, height=360, seconds=20))
        turns = 0
        while not running.task.done():
            await asyncio.sleep(0.001)
            turns += 1
        await running.task
    assert turns > 20  # a blocking wait anywhere would leave a handful


async def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RenderPool(0)


PARENT = """
import asyncio, sys
from pathlib import Path
from taskwire.providers.render import RenderJob, RenderPool

async def main():
    pool = RenderPool(2)
    def note(progress):
        if progress.frame == 1:
            print(*pool.pids, flush=True)
    jobs = [RenderJob(str(n), "Cats", 1920, 1080, 60, 3600, Path(sys.argv[1]) / str(n)) for n in range(2)]
    await asyncio.gather(*(pool.render(job, note) for job in jobs))

asyncio.run(main())
"""


@needs_proc
async def test_workers_die_with_a_server_that_is_killed(tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path), stdout=pipe)
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            await parent.stdout.readline()
            pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
    finally:
        parent.kill()
        await parent.wait()
    await eventually_async(lambda: not any(map(alive, pids)), 60)


@needs_proc
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a process group")
async def test_control_c_reaches_the_parent_alone(tmp_path: Path) -> None:
    """A terminal sends it to every process of the group; the parent here ignores it, so the render must go on."""
    code = (
        "import asyncio, signal, sys\n"
        "from pathlib import Path\n"
        "from taskwire.providers.render import RenderJob, RenderPool\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "async def main():\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: print('caught', flush=True))\n"
        "    pool = RenderPool(1)\n"
        "    job = RenderJob('a', 'Cats', 640, 360, 24, 60, Path(sys.argv[1]))\n"
        "    note = lambda progress: progress.frame == 1 and print('begun', flush=True)\n"
        "    result = await pool.render(job, note)\n"
        "    print(result.frames, flush=True)\n"
        "    await pool.close()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            assert await parent.stdout.readline() == b"begun\n"
            os.killpg(parent.pid, signal.SIGINT)
            assert await parent.stdout.read() == b"caught\n1440\n"
            assert await parent.wait() == 0
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()


async def test_what_a_worker_prints_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "taskwire.providers.render")
    async with open_pool() as pool:
        with pytest.raises(RenderFailed) as caught:
            await pool.render(job(tmp_path / "nul\0byte"), nothing)
    assert caught.value.code == "RENDER_FAILED"
    assert "Traceback" in caplog.text
    assert "Traceback" not in str(caught.value)
