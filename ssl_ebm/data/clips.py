"""Which clips there are, where they lie, and which split each belongs to."""

import csv
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.decoding import SUFFIXES, BrokenClipError, FrameFormat, Timeline, read_frames, read_timeline
from ssl_ebm.data.randomness import stream_key
from ssl_ebm.errors import UserError

SPLITS = ("train", "val", "test")
_EXCESS = 1.25  # how far a group may take a split beyond its fraction
_LOADING = Lock()  # clips are opened by several threads; the arrays behind them are loaded once


@dataclass(frozen=True)
class Listing:
    """A clip that has been found but not yet read.

    Attributes:
        path: the file.
        name: how messages and results call it.
        group: clips of one group (one recording, say) stay on one side of every split.
        label: class name, where there is one.
        split: "train", "val" or "test"; None until it is decided.
        row: number of the clip within a file of arrays; None for a video file.
    """

    path: Path
    name: str
    group: str
    label: str | None = None
    split: str | None = None
    row: int | None = None


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
    path: Path
    form: FrameFormat
    timeline: Timeline
    shown: NDArray[np.int64]  # (frames,) which frame of the file stands at each place

    @property
    def frames(self) -> int:
        return len(self.shown)

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        return read_frames(self.path, self.shown[first : first + count], self.form, self.timeline)


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
        return ArrayClip(listing.name, _video_array(listing.path)[listing.row], form)
    timeline = read_timeline(listing.path)
    return FileClip(listing.name, listing.path, form, timeline, timeline.at_rate(frame_rate))


def _holds_clips(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype == np.uint8 and (len(shape) == 4 or (len(shape) == 5 and shape[-1] == 3))


@lru_cache(maxsize=2)
def _load_array(path: Path) -> NDArray[np.uint8]:
    with np.load(path) as arrays:
        return arrays["video"]


def _video_array(path: Path) -> NDArray[np.uint8]:
    """All clips of a file of arrays; compressed, so it can only be read as a whole, and is read once."""
    try:
        with _LOADING:
            video = _load_array(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BrokenClipError(" ".join(str(error).split())) from error
    if not _holds_clips(video.shape, video.dtype):
        raise BrokenClipError("its array `video` is not uint8 (N, T, H, W, 3) or (N, T, H, W)")
    return video


def _rows(path: Path) -> int | None:
    """Number of clips in a file of arrays, from the header alone; None if it holds no array of clips."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("video.npy") as file:
            if np.lib.format.read_magic(file) == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return int(shape[0]) if _holds_clips(shape, dtype) else None


def find_clips(folder: Path) -> list[Listing]:
    """All clips below a folder, sorted by path.

    - A first level named train, val or test (a folder, or an .npz file) fixes the split.
    - The next level names the class, if every clip lies in a folder of that level.
    - folder/clips.csv, where it is, may give a `group` and a `label` for a `path` relative to the folder.
    - An .npz file with an array `video` of uint8 (N, T, H, W, 3) or (N, T, H, W) counts as N clips; its array
      `group` (N,), if any, names their groups.

    Raises:
        UserError: there is no such folder, or no clip in it.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that holds the clips")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give the folder that holds the clips")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*SUFFIXES, ".npz") and p.is_file())
    paths = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not paths:
        raise UserError(f"no clip in {folder}: put video files there ({', '.join(SUFFIXES)}, or .npz)")
    notes = _read_notes(folder / "clips.csv")
    found: list[Listing] = []
    for path in paths:
        parts = list(path.relative_to(folder).parts)
        split = parts[0].removesuffix(".npz") if parts[0].removesuffix(".npz") in SPLITS else None
        inside = parts[1:] if split is not None else parts
        name = "/".join(parts)
        note = notes.get(name, {})
        label = note.get("label") or (inside[0] if len(inside) > 1 else None)
        listing = Listing(path, name, note.get("group") or name, label, split)
        found += _expand(listing) if path.suffix == ".npz" else [listing]
    if any(listing.label is None for listing in found):
        found = [replace(listing, label=None) for listing in found]
    return found


def _expand(listing: Listing) -> list[Listing]:
    rows = _rows(listing.path)
    if rows is None:
        return [replace(listing, row=0)]  # reading it will say what is wrong
    with np.load(listing.path) as arrays:
        groups = [f"{listing.name}/{g}" for g in arrays["group"]] if "group" in arrays else None
    names = [f"{listing.name}[{row}]" for row in range(rows)]
    return [
        replace(listing, name=name, group=groups[row] if groups else name, row=row)
        for row, name in enumerate(names)
    ]


def _read_notes(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "path" not in rows[0]:
        raise UserError(f"{path} has no column `path`: name it in the first line, or remove the file")
    return {row["path"]: row for row in rows}


def assign_splits(
    found: Sequence[Listing],
    fixed: set[str | None],
    where: str,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Listing]:
    """Give every clip a split; whole groups go to one side.

    Splits that the set fixes are kept. The ones it lacks are taken from its training part: groups in an order
    drawn by `seed`, as many as fit into the fraction of clips (a quarter more at most), at least one.

    Args:
        found: the clips.
        fixed: the splits that the set fixes (also those of clips left out since); None stands for none.
        where: the set's name, for messages.
        val_fraction, test_fraction: shares of the clips, in (0, 1).
        seed: names the random order.

    Raises:
        UserError: there are too few groups, or clips inside and outside of train, val and test.
    """
    if None in fixed and len(fixed) > 1:
        outside = next((listing.name for listing in found if listing.split is None), "a clip")
        raise UserError(f"{outside} lies outside train, val and test in {where}: move it into one of them")
    if None not in fixed and "train" not in fixed:
        raise UserError(f"{where} has {' and '.join(sorted(map(str, fixed)))} but no train: add it")
    split_of = {listing.name: listing.split or "train" for listing in found}
    pool = [listing for listing in found if split_of[listing.name] == "train"]
    missing = [split for split in ("test", "val") if split not in fixed]
    groups: dict[str, list[Listing]] = {}
    for listing in sorted(pool, key=lambda one: stream_key(seed, f"split/{one.group}")):
        groups.setdefault(listing.group, []).append(listing)
    if len(groups) <= len(missing):
        raise UserError(
            f"{where} has {len(groups)} independent training clip(s), too few to split off "
            f"{' and '.join(missing)}: add clips, or cut long ones into pieces"
        )
    for split in missing:
        wanted = {"val": val_fraction, "test": test_fraction}[split] * len(pool)
        still_needed = len(missing) - missing.index(split)  # one group for each later split and one for train
        taken = 0
        for group in list(groups):
            size = len(groups[group])
            if taken < wanted and taken + size <= _EXCESS * wanted and len(groups) > still_needed:
                taken += _move(groups.pop(group), split, split_of)
        if taken == 0:
            smallest = min(groups, key=lambda group: len(groups[group]))
            _move(groups.pop(smallest), split, split_of)
    return [replace(listing, split=split_of[listing.name]) for listing in found]


def _move(listings: list[Listing], split: str, split_of: dict[str, str]) -> int:
    split_of.update({listing.name: split for listing in listings})
    return len(listings)


def class_names(found: Iterable[Listing]) -> list[str]:
    """Sorted names of the classes; empty where the clips have none."""
    return sorted({listing.label for listing in found if listing.label is not None})
