"""Writes small clips with known content."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CODECS = {
    ".mp4": ("libx264", "yuv444p", {"crf": "10"}),
    ".mov": ("libx264", "yuv444p", {"crf": "10"}),
    ".mkv": ("ffv1", "bgr0", {}),
    ".webm": ("libvpx-vp9", "yuv444p", {"crf": "10", "b": "0"}),
    ".avi": ("mpeg4", "yuv420p", {"qscale": "2", "b": "4000000"}),
}


def write_clip(
    path: Path,
    frames: NDArray[np.uint8],
    rate: int = 25,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames (T, H, W, 3); `times`: when each is shown, in units of 1 / rate seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":  # Pillow chooses a palette for each frame, FFmpeg one for all
        images = [Image.fromarray(image) for image in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // rate, loop=0)
        return path
    codec, pixels, defaults = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = cast(
            av.VideoStream, container.add_stream(codec, rate=rate, options=defaults | (options or {}))
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, rate)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shades(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frame t is grey of tone 20 + 6 t, so that a frame's tone tells its number (up to 39 frames)."""
    return np.broadcast_to(
        (20 + 6 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, height, width, 3)
    ).copy()


def numbers(tones: NDArray[np.floating]) -> list[int]:
    """The numbers of frames of `shades` from their tones in [0, 1]."""
    return np.round((np.asarray(tones) * 255 - 20) / 6).astype(int).tolist()
