"""Windows of frames from clips of video, split by clip and never by frame."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.data.clips import ArrayClip, Clip, open_clip
from ssl_ebm.data.decoding import BrokenClipError, FrameFormat, to_float
from ssl_ebm.data.listings import Listing, assign_splits, check_fractions, class_names
from ssl_ebm.data.loading import check_memory, warn_of_skipped
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.data.shards.folder import StoredGroups, StoredLabels
from ssl_ebm.data.shards.records import AT_ONCE
from ssl_ebm.data.splits import SPLITS, group_numbers
from ssl_ebm.data.stored_clips import frame_counts
from ssl_ebm.errors import UserError

Labels = Sequence[int] | StoredLabels | None  # class numbers
Groups = Sequence[int] | StoredGroups  # numbers that clips of one recording share
LabelledClips = tuple[Sequence[Clip], Labels, Groups]
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
                # Not by the first process alone: each meets others.
                said = f"{name} cannot be decoded ({error}): the next clip takes its place"
                warnings.warn(said, stacklevel=2)
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


def _in_memory(clip: Clip) -> ArrayClip:
    return ArrayClip(clip.name, clip.read(0, clip.frames))


class VideoData(ClipData):
    """What sets of video clips share: how frames, windows and splits are made.

    Args:
        size: height and width of the frames in pixels, one number for both; frames are resized to cover it,
            keeping their aspect ratio, and their centre is cut out.
        grayscale: one channel instead of three.
        frame_rate: frames per second to which clips are resampled; null: every frame, at whatever rate.
        context_frames: frames that are seen.
        future_frames: frames that follow them in a training window.
        eval_future_frames: frames that follow them in a validation or test window; null: as in training.
        stride: frames from the start of one window to that of the next; null: windows do not overlap. In
            training there are as many windows, which start at random frames spread over the clip.
        windows_per_clip: at most this many windows of a clip in an epoch; null: all.
        cache: keep the decoded frames in memory, 8 bits a channel; false: decode in the workers, again and
            again.
        on_broken: what to do with a file that cannot be read: "skip" it with a warning, or "stop".
        val_fraction: share of the clips for validation, where the set fixes no such split.
        test_fraction: share of the clips for test, where the set fixes no such split.
        batch_size: windows in a batch, per process.
        workers: worker processes of each loader; the batches do not depend on it.
        seed: names all random numbers of the data, the splits' too.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 64,
        grayscale: bool = False,
        frame_rate: float | None = None,
        context_frames: int = 4,
        future_frames: int = 1,
        eval_future_frames: int | None = None,
        stride: int | None = None,
        windows_per_clip: int | None = None,
        cache: bool = True,
        on_broken: Literal["skip", "stop"] = "skip",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            context_frames=context_frames,
            future_frames=future_frames,
            eval_future_frames=eval_future_frames,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
        )
        height, width = (size, size) if isinstance(size, int) else size
        for name, value in (
            ("size", min(height, width)),
            ("frame_rate", frame_rate),
            ("stride", stride),
            ("windows_per_clip", windows_per_clip),
        ):
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: use a positive number")
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        if on_broken not in ("skip", "stop"):
            raise UserError(f"on_broken is {on_broken!r}: use skip or stop")
        self.form = FrameFormat((height, width), grayscale)
        self.frame_rate = frame_rate
        self.stride = stride
        self.windows_per_clip = windows_per_clip
        self.cache = cache
        self.on_broken = on_broken
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.skipped: dict[str, list[str]] = {"broken": [], "short": []}
        self.classes: list[str] = []
        self._clips: dict[str, LabelledClips] | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        assert self.form.size is not None
        return self.form.channels, *self.form.size

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the clips lie, for messages."""

    @abstractmethod
    def find(self) -> list[Listing]:
        """All clips of the set; `split` where the set fixes it."""

    def open(self, listing: Listing) -> Clip:
        """Make a clip of `find` readable; BrokenClipError where that fails."""
        return open_clip(listing, self.form, self.frame_rate)

    def _window(self, split: str) -> int:
        """Frames in a window."""
        return self.context_frames + (self.future_frames if split == "train" else self.eval_future_frames)

    def _needed(self, split: str | None, fixed: set[str | None]) -> int:
        """Frames that a clip must have; one that may come into any split must hold the longest window.

        Args:
            split: that the set gives the clip.
            fixed: the splits that the set fixes; those that it lacks are taken from train.
        """
        if split is None or (split == "train" and not fixed.issuperset(SPLITS)):
            return self._longest_window
        return self._window(split)

    @property
    def _longest_window(self) -> int:
        return self.context_frames + max(self.future_frames, self.eval_future_frames)

    def _prepare(self) -> dict[str, LabelledClips]:
        """Clips of each split, and the numbers of their classes and groups: read all clips, leave out the
        broken and the short ones, and share the others among the splits.

        In this order, so that a broken clip cannot be the only one of a split.
        """
        found = self.find()
        self.classes = class_names(found)
        clips = self._read_all(self.open, found)
        fixed = {one.split for one in found}
        usable = self._drop_short([one for one in found if one.name in clips], fixed, clips)
        if self.cache:
            need = sum(clips[one.name].frames for one in usable) * int(np.prod(self.frame_shape))
            remedy = "set cache to false, or lower size or frame_rate"
            check_memory(need, f"the decoded clips of {self.source}", remedy)
            clips = self._read_all(lambda one: _in_memory(clips[one.name]), usable)
            usable = [one for one in usable if one.name in clips]
        usable = assign_splits(usable, fixed, self.source, self.val_fraction, self.test_fraction, self.seed)
        number = {name: place for place, name in enumerate(self.classes)}
        prepared: dict[str, LabelledClips] = {}
        for split in SPLITS:
            chosen = [one for one in usable if one.split == split]
            labels = [number[one.label] for one in chosen if one.label is not None] if number else None
            groups = group_numbers(os.fsencode(one.group) for one in chosen)
            prepared[split] = [clips[one.name] for one in chosen], labels, groups
        return prepared

    def make_dataset(self, split: str) -> ClipWindows:
        """The windows of a split; the first call reads the clips of all splits.

        Raises:
            UserError: no clip is left, or one is broken and `on_broken` is "stop".
        """
        if self._clips is None:
            self._clips = self._prepare()
        clips, labels, groups = self._clips[split]
        if not len(clips):
            raise UserError(f"every {split} clip in {self.source} is broken or too short: add good ones")
        return ClipWindows(
            clips,
            labels,
            self._window(split),
            self.stride or self._window(split),
            self.windows_per_clip,
            split == "train",
            self.seed,
            split,
            self.on_broken == "stop",
            groups,
        )

    def _read_all(self, read: Callable[[Listing], Clip], chosen: Sequence[Listing]) -> dict[str, Clip]:
        """`read` of all but the broken clips, several at a time: PyAV decodes outside Python's lock."""

        def attempt(listing: Listing) -> Clip | str:
            try:
                return read(listing)
            except BrokenClipError as error:
                return f"{listing.name}: {error}"

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(attempt, chosen))
        broken = [result for result in results if isinstance(result, str)]
        if broken and self.on_broken == "stop":
            raise UserError(
                f"a clip in {self.source} cannot be read ({broken[0]}): remove it, or set on_broken to skip"
            )
        if len(broken) == len(chosen):
            raise UserError(f"no readable clip in {self.source} ({broken[0]}): check the files")
        self.skipped["broken"] += broken
        if broken:
            warn_of_skipped(self.source, "clip(s) that cannot be read", broken)
        return {
            one.name: clip for one, clip in zip(chosen, results, strict=True) if not isinstance(clip, str)
        }

    def _drop_short(
        self, chosen: list[Listing], fixed: set[str | None], clips: dict[str, Clip]
    ) -> list[Listing]:
        """The listings whose clips hold a whole window, of any split that they may come into."""
        fitting = [one for one in chosen if clips[one.name].frames >= self._needed(one.split, fixed)]
        fits = {one.name for one in fitting}
        short = {one.name: clips[one.name].frames for one in chosen if one.name not in fits}
        self._tell_short(short, len(fitting))
        return fitting

    def _tell_short(self, frames: dict[str, int], fitting: int) -> None:
        """Names the clips that do not hold a whole window.

        Raises:
            UserError: no other is left.
        """
        if not fitting:
            raise UserError(
                f"every readable clip in {self.source} is shorter than a window, {self._longest_window} "
                f"frames (the longest has {max(frames.values())}): lower context_frames or future_frames, or "
                "give longer clips"
            )
        self.skipped["short"] += frames
        if frames:
            lengths = [f"{name} ({count})" for name, count in frames.items()]
            kind = f"clip(s) shorter than a window of {self._longest_window} frames"
            warn_of_skipped(self.source, kind, lengths)

    def settings(self) -> dict[str, Any]:
        datasets = {name: getattr(self, f"{name}_dataset") for name in ("train", "val", "test")}
        return {
            "source": self.source,
            "clips": {name: len(made.clips) for name, made in datasets.items() if made is not None},
            "classes": self.classes,
            "frame_rate": self.frame_rate,
            "frame_rate_unit": "frames per second, null as stored",
            "stride": self.stride,
            "windows_per_clip": self.windows_per_clip,
            "skipped_broken": self.skipped["broken"],
            "skipped_short": self.skipped["short"],
        }
