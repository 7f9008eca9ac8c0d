"""Windows of frames from clips of video: which there are, and which are drawn."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.broken_files import BrokenFiles
from ssl_ebm.data.clips import Clip
from ssl_ebm.data.decoding import BrokenClipError, to_float
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.data.shards.folder import StoredGroups, StoredLabels
from ssl_ebm.data.shards.records import AT_ONCE
from ssl_ebm.data.stored_clips import frame_counts
from ssl_ebm.errors import UserError

Labels = Sequence[int] | StoredLabels | None  # class numbers
Groups = Sequence[int] | StoredGroups  # numbers that clips of one recording share
_BLOCK = 64  # clips whose items are counted together: of clips in shards no more is held in memory


class ClipWindows(Dataset[dict[str, Tensor]]):
    """Windows of `length` consecutive frames.

    A clip has as many segments as windows that begin `stride` frames apart fit into it. For evaluation,
    these windows are its items. In training, the frames with which a window may begin are cut into equal
    parts, one for each segment, and an item starts at one drawn within its part, anew in each epoch (an index
    beyond the length is an item of a later epoch): over the epochs all starts are equally frequent. With
    `windows_per_clip`, that many segments of each clip are drawn anew in each epoch, or spread evenly for
    evaluation.

    An item is a dictionary of tensors:
        video: (length, C, H, W) float32 in [0, 1].
        clip: int64, number of the clip in this split.
        group: int64, a number that the clips of one recording share, where their groups are known.
        start: int64, first frame of the window, after resampling in time.
        label: int64, where the clips have classes.

    Args:
        clips: the readable clips, none shorter than `length`.
        labels: class number of each clip, or None.
        length: T, frames in a window.
        stride: frames from the start of one segment to that of the next.
        windows_per_clip: at most this many windows of a clip in an epoch; None: all.
        training: draw the windows.
        seed, split: name the random numbers.
        stop: a clip that cannot be read is an error; else the next clip takes its place, with a warning.
        groups: number of the group of each clip, or None.
        max_broken: largest share of the clips, in (0, 1], that may turn out broken.
        source: where the clips lie, for messages.

    Attributes:
        found: the clips that were found broken so far, by this process and by its workers.

    Raises:
        UserError: there is no window.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Labels,
        length: int,
        stride: int,
        windows_per_clip: int | None,
        training: bool,
        seed: int,
        split: str,
        stop: bool = False,
        groups: Groups | None = None,
        max_broken: float = 1.0,
        source: str = "these data",
    ) -> None:
        self.clips = clips
        self.labels = labels
        self.groups = groups
        self.length = length
        self.stride = stride
        self.training = training
        self.seed = seed
        self.split = split
        self.stop = stop
        self.windows_per_clip = windows_per_clip
        self.frames = frame_counts(clips)
        counts = np.fromiter((some.sum() for some in self._blocks()), np.int64)
        self._before = np.concatenate([[0], counts.cumsum()])  # items before each block of clips, and of all
        if not len(self):
            raise UserError(
                f"no {split} clip holds a window of {length} frames: lower context_frames or future_frames, "
                "or give longer clips"
            )
        self.found = BrokenFiles(len(clips), self.clip_name, max_broken, source)

    def __len__(self) -> int:
        return int(self._before[-1])

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[index] for index in range(len(self)))  # of the first epoch; indices know no end

    def windows(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Segments of clips of so many frames, and how many of them are used in an epoch."""
        segments = np.maximum((frames - self.length) // self.stride + 1, 0)
        return segments, np.minimum(segments, self.windows_per_clip or segments)

    def items_of_clips(self) -> NDArray[np.int64]:
        """(N,) how many items an epoch has of each clip."""
        return np.concatenate([*self._blocks()])

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """The same, `_BLOCK` clips at a time."""
        for first in range(0, len(self.clips), AT_ONCE):
            used = self.windows(self.frames[first : first + AT_ONCE])[1]
            yield from (used[start : start + _BLOCK] for start in range(0, len(used), _BLOCK))

    def window(self, index: int) -> tuple[int, int]:
        """Clip and first frame of an item, a pure function of (seed, split, index)."""
        if index < 0:
            raise IndexError(f"index {index} is negative")
        epoch, place = divmod(index, len(self))
        block = int(self._before.searchsorted(place, side="right")) - 1
        frames = self.frames[block * _BLOCK : (block + 1) * _BLOCK]
        segments_of, used_of = self.windows(frames)
        ends = self._before[block] + np.cumsum(used_of)
        at = int(ends.searchsorted(place, side="right"))
        clip, segments, used = block * _BLOCK + at, int(segments_of[at]), int(used_of[at])
        turn = place - int(ends[at]) + used
        if not self.training:
            return clip, (2 * turn + 1) * segments // (2 * used) * self.stride
        if used < segments:
            drawer = epoch * len(self.clips) + clip
            drawn = uniforms(self.seed, f"{self.split}/segments", drawer, segments)[0]
            turn = int(np.argsort(drawn)[turn])
        starts = int(frames[at]) - self.length + 1
        within = float(uniforms(self.seed, f"{self.split}/shift", index, 1)[0, 0])
        # A part may hold fractions of a start; rounding must not carry the last one beyond the end.
        return clip, min(int((turn + within) * starts / segments), starts - 1)

    def broken_files(self) -> BrokenFiles:
        """Clips that were found broken."""
        return self.found

    def clip_name(self, clip: int) -> str:
        """How messages call a clip."""
        return self.clips[clip].name

    def item_names(self, items: Sequence[int]) -> list[str]:
        """Which clips items are from, and where they begin."""
        return [self._name(*self.window(index)) for index in items]

    def names_in_batch(self, batch: Mapping[str, Tensor]) -> list[str]:
        """The same of a batch, which may hold other clips in place of broken ones."""
        return [*map(self._name, batch["clip"].tolist(), batch["start"].tolist())]

    def _name(self, clip: int, start: int) -> str:
        return f"{self.clip_name(clip)}, frame {start}"

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip, start = self.window(index)
        opened = self.clips[clip]
        for _ in range(len(self.clips)):
            try:
                frames = opened.read(start, self.length)
                break
            except BrokenClipError as error:
                name = opened.name
                if self.stop:
                    raise UserError(
                        f"{name} cannot be decoded ({error}): remove it, or set on_broken to skip"
                    ) from error
                self.found.add(clip, f"{name} cannot be decoded ({error}): the next clip takes its place")
                clip = (clip + 1) % len(self.clips)
                opened = self.clips[clip]
                start = min(start, opened.frames - self.length)
        else:
            raise UserError(f"no clip of the {self.split} split can be decoded: check the files")
        item = {"video": to_float(frames), "clip": torch.tensor(clip), "start": torch.tensor(start)}
        if self.labels is not None:
            item["label"] = torch.tensor(self.labels[clip])
        if self.groups is not None:
            item["group"] = torch.tensor(self.groups[clip])
        return item
