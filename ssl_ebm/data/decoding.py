"""Frames of a video file, through PyAV (whose wheel carries FFmpeg).

The rotation tag of a file and its pixel aspect ratio are respected: frames come as a player shows them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from torch import Tensor

from ssl_ebm.data.shards.stored import StoredFile

SUFFIXES = (".mp4", ".avi", ".gif", ".webm", ".mkv", ".mov")
MOST_PIXELS = 2**26  # of a frame, which may announce any size: 8192 x 8192
_REORDERING = 16  # frames that a codec may store before one that is shown earlier (H.264 and HEVC allow 16)


class BrokenClipError(Exception):
    """A file that cannot be decoded; the message is the reason in a few words, without the file's name."""


@dataclass(frozen=True)
class FrameFormat:
    """What frames are turned into.

    Attributes:
        size: (height, width) in pixels. The frame is resized, keeping its aspect ratio, until it just covers
            this, and its centre is cut out. None keeps the size of the file.
        grayscale: one channel instead of three.
    """

    size: tuple[int, int] | None
    grayscale: bool = False

    @property
    def channels(self) -> int:
        return 1 if self.grayscale else 3

    def apply(self, frame: av.VideoFrame, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
        """(H, W, C) uint8 of a decoded frame whose pixels are `pixel_aspect` times as wide as high."""
        turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns that set the frame upright
        wide, high = frame.width * pixel_aspect, float(frame.height)
        if turns % 2:
            wide, high = high, wide
        height, width = self.size or (round(high), round(wide))
        ratio = max(height / high, width / wide)
        shown = (max(height, round(high * ratio)), max(width, round(wide * ratio)))
        stored = shown[::-1] if turns % 2 else shown
        smaller = stored[0] < frame.height
        image = frame.reformat(
            height=stored[0],
            width=stored[1],
            format="gray" if self.grayscale else "rgb24",
            interpolation=Interpolation.AREA if smaller else Interpolation.BICUBIC,
        ).to_ndarray()
        image = np.rot90(image.reshape(*stored, self.channels), turns)
        top, left = (shown[0] - height) // 2, (shown[1] - width) // 2
        return np.ascontiguousarray(image[top : top + height, left : left + width])


@dataclass(frozen=True)
class Timeline:
    """When the frames of a file are shown.

    Attributes:
        seconds: (N,) float64, ascending, from the first frame.
        stamps: (N,) int64, the same in the file's own unit, for seeking; None where the file carries no
            stamps.
    """

    seconds: NDArray[np.float64]
    stamps: NDArray[np.int64] | None

    def at_rate(self, rate: float | None) -> NDArray[np.int64]:
        """Indices of the frames to show at `rate` frames per second: at time k / rate the latest frame shown
        by then.

        A rate above the file's own repeats frames. None: every frame once, whatever its duration.
        """
        count = len(self.seconds)
        if rate is None or count < 2:
            return np.arange(count)
        last = float(np.median(np.diff(self.seconds)))  # how long the last frame is shown
        shown = max(int((self.seconds[-1] + last) * rate + 1e-6), 1)
        ticks = np.arange(shown) / rate + 1e-6  # a tick at a frame's own time shows it, despite rounding
        return np.searchsorted(self.seconds, ticks, side="right") - 1


def _open(path: Path | StoredFile, **options: str) -> tuple[Any, Any]:
    """Container and its main video stream. One thread: files are decoded side by side instead."""
    container = av.open(str(path) if isinstance(path, Path) else path.open(), options=options)
    stream: Any = container.streams.best("video")
    if stream is None:
        container.close()
        raise BrokenClipError("it has no video stream")
    if stream.codec_context is None:
        container.close()
        raise BrokenClipError("nothing here decodes its codec")
    if stream.width * stream.height > MOST_PIXELS:
        container.close()
        raise BrokenClipError(f"its frames have more than {MOST_PIXELS:,} pixels")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # frames may say another size later
    return container, stream


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def _all_frames(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise BrokenClipError("a frame is damaged")
        yield frame


def read_timeline(path: Path | StoredFile) -> Timeline:
    """The times of a file's frames, from its packets, and a check that its first frame decodes.

    Raises:
        BrokenClipError: the file cannot be read, or ends before its own table of frames does.
    """
    try:
        container, stream = _open(path)
        with container:
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            fewer = "mp4" in container.format.name and len(packets) < stream.frames
            stamps = [p.pts for p in packets]
            unit = float(stream.time_base)
            rate = float(stream.average_rate or 25)  # only for files without time stamps
        if fewer:
            _check_whole(path)
        if None in stamps or len(set(stamps)) < len(stamps):  # AVI with B-frames: only decoding tells
            container, stream = _open(path)
            with container:
                stamps = [frame.pts for frame in _all_frames(container, stream)]
            if None in stamps or sorted(set(stamps)) != stamps:
                return Timeline(np.arange(len(stamps)) / rate, None)
        else:
            container, stream = _open(path)
            with container:
                next(_all_frames(container, stream))
    except (av.FFmpegError, OSError, ValueError, StopIteration) as error:
        raise BrokenClipError(_reason(error) if str(error) else "it holds no frame") from error
    if not stamps:
        raise BrokenClipError("it holds no frame")
    order = np.sort(np.array(stamps, dtype=np.int64))
    return Timeline((order - order[0]) * unit, order)


def _check_whole(path: Path | StoredFile) -> None:
    """BrokenClipError where a file holds fewer frames than its table names, those trimmed away included."""
    container, stream = _open(path, ignore_editlist="1")
    with container:
        held = sum(packet.size > 0 for packet in container.demux(stream))
        if held < stream.frames:
            raise BrokenClipError(f"it is cut off after {held} of {stream.frames} frames")


def read_frames(
    path: Path | StoredFile, wanted: Sequence[int] | NDArray[np.int64], form: FrameFormat, timeline: Timeline
) -> NDArray[np.uint8]:
    """Some frames of a file.

    Args:
        path: the file.
        wanted: (N,) ascending frame numbers, which may repeat.
        form: size and channels of the result.
        timeline: of this file.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        BrokenClipError: a wanted frame cannot be decoded.
    """
    numbers = sorted({int(n) for n in wanted})
    found: dict[int, NDArray[np.uint8]] = {}
    try:
        for earlier in (0, _REORDERING):
            if timeline.stamps is not None and numbers[0] > earlier and len(found) < len(numbers):
                found = _seek(path, numbers, form, timeline.stamps, numbers[0] - earlier)
        if len(found) < len(numbers):
            missing = set(numbers) - found.keys()
            container, stream = _open(path)
            with container:
                aspect = float(stream.sample_aspect_ratio or 1)
                for number, frame in enumerate(_all_frames(container, stream)):
                    if number in missing:
                        found[number] = form.apply(frame, aspect)
                    if number >= numbers[-1]:
                        break
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BrokenClipError(_reason(error)) from error
    if len(found) < len(numbers):
        raise BrokenClipError(f"only {len(found)} of {len(numbers)} frames could be decoded")
    return np.stack([found[int(n)] for n in wanted])


def _seek(
    path: Path | StoredFile, numbers: list[int], form: FrameFormat, stamps: NDArray[np.int64], target: int
) -> dict[int, NDArray[np.uint8]]:
    """The frames reached from the key frame before frame `target`; empty where seeking does not get there."""
    number_of = {int(stamps[n]): n for n in numbers}
    found: dict[int, NDArray[np.uint8]] = {}
    container, stream = _open(path)
    with container:
        aspect = float(stream.sample_aspect_ratio or 1)
        try:
            container.seek(int(stamps[target]), stream=stream)
        except av.FFmpegError:  # GIF has no index
            return {}
        for frame in container.decode(stream):
            if frame.pts is None or (not found and frame.pts > stamps[numbers[0]]):
                return {}
            if frame.pts in number_of:
                if frame.is_corrupt:
                    return {}
                found[number_of[frame.pts]] = form.apply(frame, aspect)
            if frame.pts >= stamps[numbers[-1]]:
                break
    return found


def to_float(frames: NDArray[np.uint8]) -> Tensor:
    """(T, H, W, C) uint8 to (T, C, H, W) float32 in [0, 1]."""
    channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(channels_first).div_(255)
