"""Reading a folder of shards: any item at once, by its row of the index."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.decoding import Timeline
from ssl_ebm.data.listings import Listing
from ssl_ebm.data.shards.manifest import AGAIN, Kind, Manifest, check_files, is_sharded, read_manifest
from ssl_ebm.data.shards.records import Records
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.data.shards.tables import (
    CLIP,
    CLIPS,
    GROUPS,
    ITEM,
    ITEMS,
    NAMES,
    TIMES,
    Rows,
    Strings,
)
from ssl_ebm.data.splits import SPLITS, group_numbers
from ssl_ebm.errors import UserError

OPEN = 64  # shards that a process keeps open; systems allow a thousand files
_BLOCK = 2**20  # bytes of which a checksum is taken at a time


class ShardFolder:
    """Shards that `open_shards` has checked. The index is read as it is needed, too, so memory does not grow
    with the items.

    Processes and threads may read one object at once; a copy in another process opens the files anew.

    Attributes:
        folder: where they lie.
        manifest: what they hold.
        items: a record for each, see `tables.ITEM`.
        clips: of clips a record for each, see `tables.CLIP`.
        names: of the items.
        groups: the same of their groups.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.items = Records(folder / ITEMS, ITEM)
        self.clips = Records(folder / CLIPS, CLIP)
        self.names = Strings(folder / NAMES, self.items, "name_end")
        grouped = len(self.items) > 0 and int(self.items[len(self) - 1]["group_end"]) > 0
        self.groups = Strings(folder / GROUPS, self.items, "group_end") if grouped else self.names
        self._times = Records(folder / TIMES, np.uint8)
        self._whole = np.zeros(-(-len(self) // 8), np.uint8)  # bits: items that had their checksum here
        self._opened: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.items)

    def __reduce__(self) -> tuple[Callable[..., ShardFolder], tuple[Path, Manifest]]:
        return ShardFolder, (self.folder, self.manifest)

    def __del__(self) -> None:
        for handle in getattr(self, "_opened", {}).values():
            os.close(handle)

    # -- content -----------------------------------------------------------------------------------------

    def read(self, row: int) -> bytes:
        """The content of an item.

        Raises:
            UserError: a shard that cannot be read, or is not what was written.
        """
        item = self.items[row]
        content = self._read(row, item, 0, int(item["size"]))
        if zlib.crc32(content) != item["crc"]:
            raise self._changed(row)
        return content

    def read_some(self, row: int, start: int, count: int) -> bytes:
        """A stretch of the content of an item, whose checksum is taken once in each process.

        Raises:
            UserError: as `read`.
        """
        item = self.items[row]
        if not self._whole[row // 8] >> row % 8 & 1:
            size, crc = int(item["size"]), 0
            for first in range(0, size, _BLOCK):
                crc = zlib.crc32(self._read(row, item, first, min(_BLOCK, size - first)), crc)
            if crc != item["crc"]:
                raise self._changed(row)
            with self._lock:
                self._whole[row // 8] |= 1 << row % 8
        return self._read(row, item, start, count)

    def _read(self, row: int, item: Any, start: int, count: int) -> bytes:
        number, offset = int(item["shard"]), int(item["offset"])
        try:
            if offset + start + count > self.manifest.shards[number].size:
                raise self._changed(row)
            with self._lock:
                content = os.pread(self._handle(number), count, offset + start)
        except (OSError, IndexError, OverflowError) as error:
            raise UserError(
                f"shard {number} of {self.folder} cannot be read ({error}): it must stay where it is while a "
                "training runs"
            ) from error
        if len(content) < count:
            raise self._changed(row)
        return content

    def _handle(self, number: int) -> int:
        if number not in self._opened:
            if len(self._opened) >= OPEN:
                os.close(self._opened.popitem(last=False)[1])
            path = self.folder / Path(self.manifest.shards[number].name).name
            self._opened[number] = os.open(path, os.O_RDONLY)
        self._opened.move_to_end(number)
        return self._opened[number]

    def _changed(self, row: int) -> UserError:
        shard = self.manifest.shards[int(self.items[row]["shard"])].name
        return UserError(
            f"{self.names[row]} in {self.folder / shard} differs from its checksum, the file was changed or "
            f"cut off: {AGAIN}"
        )

    # -- what the index says -----------------------------------------------------------------------------

    @property
    def fixed(self) -> set[str | None]:
        """The splits that the original folder fixes; None stands for none."""
        return {None if name == "any" else name for name, count in self.manifest.splits.items() if count}

    def file(self, row: int) -> StoredFile:
        """An item that is a file of its own."""
        return StoredFile(self, row)

    def size(self) -> int:
        """Bytes of all items."""
        return sum(int(block["size"].sum()) for block in self.items.blocks())

    def listings(self) -> Iterator[Listing]:
        """All files, as `find_files` would list them in the original folder; one after another, so that those
        that nobody keeps take no memory."""
        classes = [*self.manifest.classes, None]  # -1 is the last
        splits = [*SPLITS, None]
        items = chain.from_iterable(self.items.blocks())
        last: Listing | None = None  # whose parts are being counted
        for row, (item, name, group) in enumerate(zip(items, self.names, self.groups, strict=True)):
            if item["begins"]:
                if last is not None:
                    yield last
                stored = StoredFile(self, row, known=name)
                last = Listing(stored, name, group, classes[item["label"]], splits[item["split"]])
            elif last is not None:
                stored = replace(stored, parts=stored.parts + 1)
                last = replace(last, path=stored)
        if last is not None:
            yield last

    def labels(self, rows: Rows) -> StoredLabels | None:
        """Class numbers of some items; None where there are no classes."""
        return StoredLabels(self, rows) if self.manifest.classes else None

    def groups_of(self, rows: Rows) -> StoredGroups | None:
        """Numbers of the groups of some items; None where no item has a group but itself."""
        return None if self.groups is self.names else StoredGroups(self, rows)

    # -- clips -------------------------------------------------------------------------------------------

    def frame_counts(self, frame_rate: float | None, start: int, stop: int) -> NDArray[np.int64]:
        """(stop - start,) how many frames these clips have, resampled in time (see `Timeline.at_rate`)."""
        clips = self.clips.some(start, stop)
        frames = clips["frames"].astype(np.int64)
        if frame_rate is None:
            return frames
        before = self.clips[start - 1]["times_end"] if start else np.uint64(0)
        shown = ((clips["last"] + clips["gap"]) * frame_rate + 1e-6).astype(np.int64)
        timed = (frames > 1) & (np.diff(clips["times_end"], prepend=before) > 0)  # arrays have no times
        return np.where(timed, np.maximum(shown, 1), frames)

    def timeline(self, row: int) -> Timeline | None:
        """When the frames of a clip are shown; None for an array.

        Raises:
            UserError: the index was changed.
        """
        clip = self.clips[row]
        start = int(self.clips[row - 1]["times_end"]) if row else 0
        held = self._times.some(start, int(clip["times_end"])).tobytes()
        if not held:
            return None
        if zlib.crc32(held) != clip["crc"]:
            raise UserError(f"{self.folder / TIMES} was changed, it differs from its checksum: {AGAIN}")
        count = int(clip["frames"])
        if len(held) != 8 * count * (2 if clip["stamped"] else 1):
            raise UserError(f"{self.folder / CLIPS} gives a clip {count} frames and other times: {AGAIN}")
        stamps = np.frombuffer(held, "<i8", count, 8 * count) if clip["stamped"] else None
        return Timeline(np.frombuffer(held, "<f8", count), stamps)


class StoredLabels:
    """Class numbers of some items of shards: read where an array of them would be held.

    Args:
        shards: which.
        rows: of their index.
    """

    def __init__(self, shards: ShardFolder, rows: Rows) -> None:
        self.shards, self.rows = shards, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """Those at one or more places, from 0."""
        items = self.shards.items
        found = [items[self.rows[one]]["label"] for one in np.ravel(place).tolist()]
        return np.array(found, np.int64).reshape(np.shape(place))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(n,) all of them, in memory."""
        labels = self.shards.items.column("label")[np.asarray(self.rows)]
        return labels.astype(np.int64 if dtype is None else dtype)


class StoredGroups:
    """Numbers of the groups of some items of shards, as `group_numbers` gives them: made when asked for.

    Args:
        shards: which.
        rows: of their index.
    """

    def __init__(self, shards: ShardFolder, rows: Rows) -> None:
        self.shards, self.rows = shards, rows

    def __getitem__(self, place: int) -> int:
        return group_numbers([os.fsencode(self.shards.groups[self.rows[place]])])[0]


def open_shards(folder: str | Path, kind: Kind) -> ShardFolder | None:
    """The shards of a folder; None where it holds none.

    Raises:
        UserError: they hold something else, are of another version, unfinished, or damaged.
    """
    folder = Path(folder)
    if not is_sharded(folder):
        return None
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise UserError(f"{folder} holds shards of {manifest.kind}, not of {kind}: give another folder")
    check_files(folder, manifest)
    found = ShardFolder(folder, manifest)
    if not _is_sound(found):
        raise UserError(f"the index in {folder} does not hold the {manifest.items} items it should: {AGAIN}")
    return found


def _is_sound(shards: ShardFolder) -> bool:
    """Whether all numbers of the index are within their ranges, whoever has written them."""
    manifest, items = shards.manifest, shards.items
    if len(items) != manifest.items or not len(items) or not items[0]["begins"]:
        return False
    if len(shards.clips) != (len(items) if manifest.kind == "clips" else 0):
        return False
    ranges = {
        "shard": (0, len(manifest.shards)),
        "label": (-1, len(manifest.classes)),
        "split": (-1, len(SPLITS)),
    }
    return all(
        low <= int(block[name].min()) and int(block[name].max()) < end
        for block in items.blocks()
        for name, (low, end) in ranges.items()
    )
