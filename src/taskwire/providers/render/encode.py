"""Encodes a scene into the files of a result: `video.mp4` and `thumbnail.jpg`.

Both are written under temporary names, flushed to the disk, probed, and only then renamed: under its final name there
is a whole, playable file or none.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from .files import THUMBNAIL, VIDEO, part, remove_part_files
from .scene import Scene

THUMBNAIL_WIDTH = 640  # pixels, at most

# Measured on three scenes at 1280x720: encoded frames per CPU second, size of 5 s, PSNR of luma.
#   this                  280     0.5-0.8 MB   51-52 dB
#   superfast, crf 21   110-150   0.7-0.9 MB   49-52 dB
#   veryfast, crf 21     75-110       0.4 MB   48-51 dB
# The preset leaves the deblocking filter out, and smooth gradients then show the edges of blocks: it is put back.
_X264 = {"preset": "ultrafast", "crf": "22", "x264-params": "no-deblock=0:deblock=1,1"}
_ENCODERS = (
    "libx264",
    "libopenh264",
    "mpeg4",
)  # the first this FFmpeg has; only x264 is asked for more than defaults


class RenderInvalid(Exception):
    """The finished file is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A finished video as probed: duration in seconds, size in bytes, picture in pixels, number of frames, codec."""

    duration: float
    file_size: int
    width: int
    height: int
    frames: int
    codec: str


class Progress(NamedTuple):
    """Frames that have left the encoder, of how many, and the speed so far in frames per second."""

    frame: int
    frames: int
    fps: float


def render(
    scene: Scene, directory: Path, on_progress: Callable[[Progress], None], *, threads: int = 1
) -> Clip:
    """Encode all of a scene into `directory`, which is made if need be; return the video's measured properties.

    `on_progress` is called for every frame. Raises OSError (ENOSPC when the disk is full), RenderInvalid, or
    av.FFmpegError; temporary files are removed then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    video, thumbnail = part(directory, VIDEO), part(directory, THUMBNAIL)
    try:
        middle = _encode(scene, video, on_progress, threads)
        _save_thumbnail(middle, thumbnail)
        for path in (video, thumbnail):
            _flush(path)
        clip = probe(video)
        if (clip.width, clip.height, clip.frames) != (scene.width, scene.height, scene.frames):
            raise RenderInvalid(f"the encoded file holds {clip.frames} frames of {clip.width}x{clip.height}")
        os.replace(video, directory / VIDEO)
        os.replace(thumbnail, directory / THUMBNAIL)
        _flush(directory)  # the renames themselves
    except BaseException:
        remove_part_files(directory)
        raise
    return clip


def probe(path: Path) -> Clip:
    """Measure a video file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        length = (stream.duration or 0) * (stream.time_base or Fraction(0))
        context = stream.codec_context
        return Clip(
            float(length), path.stat().st_size, context.width, context.height, stream.frames, context.name
        )


def _encode(scene: Scene, path: Path, on_progress: Callable[[Progress], None], threads: int) -> av.VideoFrame:
    """Write the video file; return its middle frame."""
    began = time.monotonic()
    done = 0
    middle: av.VideoFrame | None = None

    def mux(packets: Any) -> None:
        nonlocal done
        for packet in packets:
            container.mux(packet)
            done += 1
            on_progress(Progress(done, scene.frames, done / max(1e-6, time.monotonic() - began)))

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _add_stream(container, scene, threads)
        for index in range(scene.frames):
            frame = scene.frame(index)
            frame.pts, frame.time_base = index, Fraction(1, scene.fps)
            if index == scene.frames // 2:
                middle = frame
            mux(stream.encode(frame))
        mux(stream.encode(None))
    assert middle is not None  # a clip has at least one frame
    return middle


def _add_stream(container: OutputContainer, scene: Scene, threads: int) -> VideoStream:
    encoder = next(filter(_can_encode, _ENCODERS))
    options = _X264 if encoder == "libx264" else {}
    stream = container.add_stream(encoder, rate=scene.fps, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
    context = stream.codec_context
    context.gop_size = 2 * scene.fps  # a point to seek to every two seconds
    context.thread_count = threads
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        return False
    return True


def _save_thumbnail(frame: av.VideoFrame, path: Path) -> None:
    rgb = frame.reformat(format="rgb24")
    image = Image.fromarray(rgb.to_ndarray())
    image.thumbnail((THUMBNAIL_WIDTH, image.height))
    with path.open("wb") as file:
        image.save(file, "JPEG", quality=86, optimize=True)


def _flush(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows keeps directories in order itself, and cannot open them
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
