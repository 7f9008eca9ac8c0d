"""Sets of clips of video, split by clip and never by frame."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from ssl_ebm.data.broken_files import check_on_broken, check_share
from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.data.clip_windows import ClipWindows, Groups, Labels
from ssl_ebm.data.clips import ArrayClip, Clip, open_clip
from ssl_ebm.data.decoding import BrokenClipError, FrameFormat
from ssl_ebm.data.listings import Listing, assign_splits, check_fractions, class_names
from ssl_ebm.data.loading import check_memory, warn_of_skipped
from ssl_ebm.data.splits import SPLITS, group_numbers
from ssl_ebm.errors import UserError

LabelledClips = tuple[Sequence[Clip], Labels, Groups]


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
            The next clip takes the place of one that breaks while training.
        max_broken: share of the clips, in (0, 1], that may be broken where they are skipped, of all when they
            are opened and of a split's while training (each process counts those that it meets); with more,
            training stops. 1, the default: see `ImageFolder`.
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
        max_broken: float = 1.0,
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
        check_on_broken(on_broken, max_broken)
        self.form = FrameFormat((height, width), grayscale)
        self.frame_rate = frame_rate
        self.stride = stride
        self.windows_per_clip = windows_per_clip
        self.cache = cache
        self.on_broken = on_broken
        self.max_broken = max_broken
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
    def broken(self) -> list[str]:
        """Clips that could not be read when they were opened, each with the reason, and those met later
        (`BrokenFiles`)."""
        made = [one for one in (self.train_dataset, self.val_dataset, self.test_dataset) if one is not None]
        return self.skipped["broken"] + [name for one in made for name in one.found.names]

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
            self.max_broken,
            self.source,
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
        every = self.skipped["broken"]  # of clips that are opened and then decoded, both times
        files = len(chosen) - len(broken) + len(every) + len(self.skipped["short"])
        check_share(len(every), files, every, self.max_broken, self.source)
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
            "skipped_broken": self.broken,
            "skipped_short": self.skipped["short"],
        }
