"""Clips that can be read: video files, and arrays of frames."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_ebm.data.clip_arrays import groups_in, load_row, rows_in
from ssl_ebm.data.decoding import (
    SUFFIXES,
    BrokenClipError,
    FrameFormat,
    Timeline,
    read_frames,
    read_timeline,
    to_float,
)
from ssl_ebm.data.listings import Listing, find_files, scan_files
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.errors import UserError

FILES = (*SUFFIXES, ".npz")  # endings of files of clips


class Clip(Protocol):
    """A readable clip: its length, and any stretch of its frames."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def frames(self) -> int:
        """Number of frames, after resampling in time."""
        ...

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        """Frames first..first + count - 1: (count, H, W, C) uint8."""
        ...


@dataclass(frozen=True)
class FileClip:
    """A clip that is decoded whenever it is read."""

    name: str
    path: Path | StoredFile
    form: FrameFormat
    timeline: Timeline
    shown: NDArray[np.int64]  # (frames,) which frame of the file stands at each place

    @property
    def frames(self) -> int:
        return len(self.shown)

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        return read_frames(self.path, self.shown[first : first + count], self.form, self.timeline)


@dataclass(frozen=True)
class RowClip:
    """A clip of a file of arrays, of which memory holds nothing: the last files read are kept as a whole."""

    listing: Listing
    frames: int
    form: FrameFormat

    @property
    def name(self) -> str:
        return self.listing.name

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        return ArrayClip(self.name, load_row(self.listing), self.form).read(first, count)


@dataclass(frozen=True)
class ArrayClip:
    """A clip in memory or a memory map: (T, H, W) or (T, H, W, C), used as it is where `form` is None."""

    name: str
    pixels: NDArray[np.uint8]
    form: FrameFormat | None = None

    @property
    def frames(self) -> int:
        return len(self.pixels)

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        stretch = self.pixels[first : first + count]
        if self.form is None:
            return stretch
        kind = "rgb24" if stretch.ndim == 4 else "gray"
        return np.stack(
            [
                self.form.apply(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=kind))
                for frame in stretch
            ]
        )


def open_clip(listing: Listing, form: FrameFormat, frame_rate: float | None) -> Clip:
    """Make a listed clip readable; arrays have no times and keep every frame.

    Raises:
        BrokenClipError: it cannot be read.
    """
    if listing.row is not None:
        return RowClip(listing, len(load_row(listing)), form)
    timeline = read_timeline(listing.path)
    return FileClip(listing.name, listing.path, form, timeline, timeline.at_rate(frame_rate))


def find_clips(folder: Path) -> list[Listing]:
    """All clips below a folder, ordered by path: video files, and arrays of clips (see `find_files`).

    An .npz file with an array `video` of uint8 (N, T, H, W, 3) or (N, T, H, W) counts as N clips. A group
    that clips.csv gives to the file is that of all of them; otherwise its array `group` (N,), if any, names
    theirs.

    Raises:
        UserError: there is no such folder, or no clip in it.
    """
    return list(_expanded(find_files(folder, FILES, "clips")))


def scan_clips(folder: Path) -> Iterator[Listing]:
    """The same, one after another, as `scan_files` lists them."""
    return _expanded(scan_files(folder, FILES, "clips"))


def _expanded(found: Iterable[Listing]) -> Iterator[Listing]:
    for listing in found:
        yield from _expand(listing) if listing.path.suffix == ".npz" else [listing]


def _expand(listing: Listing) -> list[Listing]:
    assert isinstance(listing.path, Path)
    rows = rows_in(listing.path)
    try:
        groups = None if rows is None or listing.grouped else groups_in(listing.path)
    except BrokenClipError:
        rows = None
    if rows is None:
        return [replace(listing, row=0)]  # reading it will say what is wrong

    def group(row: int, name: str) -> str:
        if listing.grouped:
            return listing.group
        return name if groups is None else f"{listing.name}/{groups[row]}"

    names = [f"{listing.name}[{row}]" for row in range(rows)]
    return [replace(listing, name=name, group=group(row, name), row=row) for row, name in enumerate(names)]


def load_clip(
    path: str | Path,
    size: int | tuple[int, int] | None = None,
    frame_rate: float | None = None,
    grayscale: bool = False,
    start: int = 0,
    frames: int | None = None,
) -> Tensor:
    """A clip from a file, as the datasets of this package would give it.

    Args:
        path: a video file, or ``FILE.npz[ROW]``, one clip of a file of arrays (see `find_clips`).
        size: (height, width), or one number for both, in pixels; the frame is resized to cover it and cut.
            None: as stored.
        frame_rate: frames per second; None: every frame. Arrays have no times and keep every frame.
        grayscale: one channel instead of three.
        start: first frame, counted after resampling in time.
        frames: how many; None: all that follow.

    Returns:
        (T, C, H, W) float32 in [0, 1].

    Raises:
        UserError: the file is missing, is no video, has no such row, or is too short.
    """
    listing = _listing(str(path))
    if isinstance(listing.path, Path) and not listing.path.is_file():
        raise UserError(f"no file {listing.path}: give the path of a video")
    try:
        form = FrameFormat((size, size) if isinstance(size, int) else size, grayscale)
        clip = open_clip(listing, form, frame_rate)
        if clip.frames - start < (frames or 1):
            raise UserError(
                f"{path} has {clip.frames} frames, but {start + (frames or 1)} are needed: give a longer clip"
                + (" or a higher frame_rate" if frame_rate and listing.row is None else "")
            )
        return to_float(clip.read(start, clip.frames - start if frames is None else frames))
    except BrokenClipError as error:
        raise UserError(f"{path} cannot be read as a video ({error}): give another file") from error


def _listing(name: str) -> Listing:
    """Of a video file, or of a row of a file of arrays, as listings call it.

    Raises:
        UserError: the file has no such row, or many and none is chosen.
    """
    array = re.fullmatch(r"(.*\.npz)(?:\[(\d+)\])?", name)
    if array is None:
        return Listing(Path(name), name, name)
    path, row = Path(array[1]), array[2]
    rows = rows_in(path)
    if rows is None:  # reading it will say what is wrong
        return Listing(path, name, name, row=0)
    if (row is None and rows != 1) or int(row or 0) >= rows:
        raise UserError(f"{path} holds {rows} clips: choose one, as in {path}[0], up to {path}[{rows - 1}]")
    return Listing(path, name, name, row=int(row or 0))
