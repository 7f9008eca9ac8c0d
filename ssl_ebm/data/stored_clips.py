"""Clips inside of shards, made readable one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.clip_arrays import announced, holds_clips
from ssl_ebm.data.clips import ArrayClip, Clip, FileClip
from ssl_ebm.data.decoding import FrameFormat
from ssl_ebm.data.listings import Listing
from ssl_ebm.data.shards.folder import ShardFolder
from ssl_ebm.data.shards.records import AT_ONCE
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.data.shards.tables import Rows
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class StoredArrayClip:
    """A clip that is an array in shards, read whenever it is asked for.

    Attributes:
        name: how messages call it.
        file: the array, (T, H, W) or (T, H, W, 3) uint8, in NumPy's format.
        frames: T.
        form: what frames are turned into.
    """

    name: str
    file: StoredFile
    frames: int
    form: FrameFormat

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        """Frames first..first + count - 1: (count, H, W, C) uint8.

        Raises:
            UserError: a shard that cannot be read, or was changed.
        """
        try:
            with self.file.open() as opened:
                shape, dtype = announced(opened)
                whole = holds_clips((1, *shape), dtype) and shape[0] == self.frames
                if not whole or math.prod(shape) > self.file.size():
                    raise ValueError(f"{dtype} of shape {shape}")
                opened.seek(0)
                pixels = np.lib.format.read_array(opened, allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # of another type for each way in which a header can be wrong
            raise UserError(
                f"{self.name} in {self.file.shards.folder} is no array of frames ({error}): make the shards "
                "again with ssl-ebm shard"
            ) from error
        return ArrayClip(self.name, pixels, self.form).read(first, count)


def open_stored(shards: ShardFolder, row: int, form: FrameFormat, frame_rate: float | None) -> Clip:
    """Make a clip of shards readable; its times are in the index, so no file is opened.

    Raises:
        UserError: the index was changed.
    """
    timeline = shards.timeline(row)
    name, file = shards.names[row], shards.file(row)
    if timeline is None:
        return StoredArrayClip(name, file, int(shards.clips[row]["frames"]), form)
    return FileClip(name, file, form, timeline, timeline.at_rate(frame_rate))


def open_listed(listing: Listing, form: FrameFormat, frame_rate: float | None) -> Clip:
    """The same of a listed clip."""
    assert isinstance(listing.path, StoredFile)
    return open_stored(listing.path.shards, listing.path.row, form, frame_rate)


class StoredClips(Sequence[Clip]):
    """Some clips of shards.

    Args:
        shards: which.
        rows: of their index.
        form: what frames are turned into.
        frame_rate: frames per second to which clips are resampled; None: every frame.
    """

    def __init__(self, shards: ShardFolder, rows: Rows, form: FrameFormat, frame_rate: float | None) -> None:
        self.shards, self.rows, self.form, self.frame_rate = shards, rows, form, frame_rate

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return open_stored(self.shards, self.rows[index], self.form, self.frame_rate)

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))


class StoredFrames:
    """How many frames some clips of shards have, read when they are asked for: a slice gives (n,) int64.

    Args:
        clips: which.
    """

    def __init__(self, clips: StoredClips) -> None:
        self.clips = clips

    def __getitem__(self, places: slice) -> NDArray[np.int64]:
        clips = self.clips
        start, stop, _ = places.indices(len(clips))
        rows = clips.rows.some(start, stop)
        found, done = np.empty(len(rows), np.int64), 0
        while done < len(rows):  # once, but where a split has few of the clips
            first = int(rows[done])
            near = rows[done : done + int(rows[done:].searchsorted(first + AT_ONCE))]
            counts = clips.shards.frame_counts(clips.frame_rate, first, int(near[-1]) + 1)
            found[done : done + len(near)] = counts[near - first]
            done += len(near)
        return found


def frame_counts(clips: Sequence[Clip]) -> NDArray[np.int64] | StoredFrames:
    """How many frames each clip has."""
    if isinstance(clips, StoredClips):
        return StoredFrames(clips)
    return np.array([clip.frames for clip in clips], np.int64)
