"""A folder of clips, as files or in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data import fingerprints
from ssl_ebm.data.clips import FILES, Clip, find_clips
from ssl_ebm.data.listings import Listing, without_class
from ssl_ebm.data.shards.drawing import rows_of_splits
from ssl_ebm.data.shards.folder import ShardFolder, StoredGroups, open_shards
from ssl_ebm.data.shards.records import AT_ONCE
from ssl_ebm.data.splits import SPLITS
from ssl_ebm.data.stored_clips import StoredClips, open_listed
from ssl_ebm.data.video import LabelledClips, VideoData


class VideoFolder(VideoData):
    """Clips of a folder: mp4, avi, gif, webm, mkv, mov, or arrays in npz files.

    Sub-folders train, val and test give the splits; where there are none, clips are shared out at random.
    Sub-folders below give the classes. A file clips.csv with columns `path` and `group` keeps the clips of a
    group, such as those cut from one recording, on one side; intervals take them for one.

    Or shards that `ssl-ebm shard` has made of such a folder: batches are the same, to the bit. With `cache`
    off, memory does not grow with the clips.

    Args:
        folder: the folder.
        **settings: those of VideoData.
    """

    def __init__(self, folder: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.folder = Path(folder)
        self._shards: ShardFolder | None = None

    @property
    def source(self) -> str:
        return str(self.folder)

    def settings(self) -> dict[str, Any]:
        own = {} if self._shards is None else {"shards": self._shards.manifest.fingerprint}
        return {**super().settings(), **own}

    def fingerprint(self) -> fingerprints.Fingerprint:
        if shards := self._shards or open_shards(self.folder, "clips"):
            return fingerprints.of_shards(shards)
        return fingerprints.of_folder(self.folder, FILES, [self.folder / "clips.csv"])

    def without_class(self) -> str | None:
        return None if self._shards is not None else without_class(self.folder, FILES, "clips")

    def find(self) -> list[Listing]:
        return find_clips(self.folder) if self._shards is None else list(self._shards.listings())

    def open(self, listing: Listing) -> Clip:
        if self._shards is not None:
            return open_listed(listing, self.form, self.frame_rate)
        return super().open(listing)

    def _prepare(self) -> dict[str, LabelledClips]:
        self._shards = open_shards(self.folder, "clips")
        if self._shards is None or self.cache:
            return super()._prepare()
        return self._prepare_shards(self._shards)

    def _prepare_shards(self, shards: ShardFolder) -> dict[str, LabelledClips]:
        """The same of the index alone."""
        self.classes = shards.manifest.classes
        splits = (*SPLITS, None)  # -1, no split, is the last
        needed = np.array([self._needed(split, shards.fixed) for split in splits])

        def frames_and_fits(start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
            frames = shards.frame_counts(self.frame_rate, start, stop)
            return frames, frames >= needed[shards.items.some(start, stop)["split"]]

        short: dict[str, int] = {}
        fitting = 0
        for start in range(0, len(shards), AT_ONCE):
            frames, fits = frames_and_fits(start, min(start + AT_ONCE, len(shards)))
            short |= {shards.names[start + at]: int(frames[at]) for at in np.flatnonzero(~fits).tolist()}
            fitting += int(fits.sum())
        self._tell_short(short, fitting)
        fractions = self.val_fraction, self.test_fraction
        rows = rows_of_splits(
            shards, *fractions, self.seed, lambda start, stop: frames_and_fits(start, stop)[1]
        )
        return {
            split: (
                StoredClips(shards, own, self.form, self.frame_rate),
                shards.labels(own),
                StoredGroups(shards, own),
            )
            for split, own in rows.items()
        }
