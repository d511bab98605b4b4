"""Encoding: real files, measured; whole or not there at all."""

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from taskwire.providers.render import encode
from taskwire.providers.render.encode import Progress, probe, render
from taskwire.providers.render.files import THUMBNAIL, VIDEO, part
from taskwire.providers.render.scene import Scene

needs_dev_full = pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="the system has no /dev/full")


def scene(frames: int = 30, width: int = 320, height: int = 180) -> Scene:
    return Scene("A quiet library", width, height, fps=10, frames=frames)


def nothing(_: Progress) -> None:
    pass


def test_the_video_is_what_the_probe_says_and_plays(tmp_path: Path) -> None:
    clip = render(scene(), tmp_path / "new" / "folder", nothing)
    video = tmp_path / "new" / "folder" / VIDEO
    assert (clip.width, clip.height, clip.frames, clip.codec) == (320, 180, 30, "h264")
    assert clip.duration == pytest.approx(3.0)
    assert clip.file_size == video.stat().st_size
    assert clip == probe(video)
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in range(30)])
    assert {frame.format.name for frame in frames} == {"yuv420p"}
    assert {(frame.colorspace, frame.color_range) for frame in frames} == {(1, 1)}
    assert [index for index, frame in enumerate(frames) if frame.key_frame][:2] == [0, 20]


def test_the_index_comes_first_so_that_playing_starts_before_all_is_loaded(tmp_path: Path) -> None:
    render(scene(), tmp_path, nothing)
    data = (tmp_path / VIDEO).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_the_encoded_picture_is_the_scene(tmp_path: Path) -> None:
    render(scene(), tmp_path, nothing)
    with av.open(str(tmp_path / VIDEO)) as container:
        decoded = [frame.to_ndarray() for frame in container.decode(video=0)]
    expected = scene().frame(12).to_ndarray()
    assert np.abs(decoded[12].astype(int) - expected.astype(int)).mean() < 2


@pytest.mark.parametrize(("width", "height", "size"), [(320, 180, (320, 180)), (1280, 720, (640, 360))])
def test_the_thumbnail_is_the_middle_frame(
    tmp_path: Path, width: int, height: int, size: tuple[int, int]
) -> None:
    clip = scene(9, width, height)
    render(clip, tmp_path, nothing)
    with Image.open(tmp_path / THUMBNAIL) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", size)
        pixels = np.asarray(thumbnail.convert("RGB"), int)
    middle = clip.frame(4).reformat(format="rgb24").to_ndarray()
    expected = np.asarray(Image.fromarray(middle).resize(size), int)
    assert np.abs(pixels - expected).mean() < 4


def test_progress_counts_encoded_frames_one_by_one(tmp_path: Path) -> None:
    seen: list[Progress] = []
    render(scene(), tmp_path, seen.append)
    assert [progress.frame for progress in seen] == list(range(1, 31))
    assert {progress.frames for progress in seen} == {30}
    assert all(progress.fps > 0 for progress in seen)


def test_a_single_frame(tmp_path: Path) -> None:
    assert render(scene(1), tmp_path, nothing).frames == 1


def test_only_the_finished_files_remain_and_older_ones_are_replaced(tmp_path: Path) -> None:
    for name in (VIDEO, THUMBNAIL):
        (tmp_path / name).write_bytes(b"older")
        part(tmp_path, name).write_bytes(b"left behind by a crash" * 10_000)
    clip = render(scene(), tmp_path, nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == [THUMBNAIL, VIDEO]
    assert (tmp_path / VIDEO).stat().st_size == clip.file_size


@needs_dev_full
@pytest.mark.parametrize("name", [VIDEO, THUMBNAIL])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    part(tmp_path, name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        render(scene(), tmp_path, nothing)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.frame == 15:
            assert part(tmp_path, VIDEO).exists()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        render(scene(), tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_what_was_asked_for_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "probe", lambda _: encode.Clip(1.0, 1000, 320, 180, 29, "h264"))
    with pytest.raises(encode.RenderInvalid, match="29 frames"):
        render(scene(), tmp_path, nothing)
    assert list(tmp_path.iterdir()) == []


def test_another_encoder_is_used_where_x264_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_ENCODERS", ("no_such_encoder", "mpeg4"))
    clip = render(scene(), tmp_path, nothing)
    assert (clip.codec, clip.frames) == ("mpeg4", 30)
