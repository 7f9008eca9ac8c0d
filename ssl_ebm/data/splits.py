"""The draw of splits: whole groups of files go to one side. Memory does not grow with the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.randomness import stream_keys
from ssl_ebm.errors import UserError

SPLITS = ("train", "val", "test")
_EXCESS = 1.25  # how far a group may take a split beyond its fraction
_BITS = 16  # leading ones of a key by which groups are counted together at first
_TOGETHER = 4096  # sections that are taken apart in one pass

FileBlocks = Callable[[], Iterable[tuple[NDArray[np.int8], NDArray[np.uint64]]]]


def group_keys(groups: Iterable[bytes], seed: int) -> NDArray[np.uint64]:
    """(N,) the random place of each file's group in the order in which groups are given to splits."""
    return stream_keys(seed, "split/", groups)


class Splits:
    """The split of every file; whole groups go to one side.

    Splits that the set fixes are kept. The ones it lacks are taken from its training part: groups in the
    order of their keys, as many as fit into the fraction of files (a quarter more at most), at least one.

    Args:
        files: begins a pass over all files, in blocks: (n,) the splits that the set fixes, by their places in
            `SPLITS` (-1: none), and (n,) the keys of the files' groups, as `group_keys` draws them. Where no
            split is to be drawn it is never called.
        fixed: the splits that the set fixes (also those of files left out since); None stands for none.
        where: the set's name, for messages.
        val_fraction, test_fraction: shares of the files, in (0, 1).

    Raises:
        UserError: there are too few groups, or no training part.
    """

    def __init__(
        self,
        files: FileBlocks,
        fixed: set[str | None],
        where: str,
        val_fraction: float,
        test_fraction: float,
    ) -> None:
        if None not in fixed and "train" not in fixed:
            raise UserError(f"{where} has {' and '.join(sorted(map(str, fixed)))} but no train: add it")
        missing = [split for split in ("test", "val") if split not in fixed]
        self._sections: _Sections | None = None
        if not missing:
            return
        sections = _Sections(lambda: (keys[given <= 0] for given, keys in files()))
        while len(sections) <= len(missing) and not sections.single.all():
            sections.take_apart(np.flatnonzero(~sections.single))
        if len(sections) <= len(missing):
            raise UserError(
                f"{where} has {len(sections)} independent training file(s), too few to split off "
                f"{' and '.join(missing)}: add more"
            )
        total = int(sections.files.sum())
        for split in missing:
            wanted = {"val": val_fraction, "test": test_fraction}[split] * total
            still_needed = len(missing) - missing.index(
                split
            )  # one group for each later split, one for train
            sections.give(SPLITS.index(split), wanted, still_needed)
        self._sections = sections

    def of(self, given: NDArray[np.int8], keys: NDArray[np.uint64]) -> NDArray[np.int8]:
        """(n,) places in `SPLITS` of some files, told as blocks of `files` are."""
        numbers = np.maximum(given, 0)
        if self._sections is not None:
            pool = numbers == 0
            numbers[pool] = self._sections.split_of(keys[pool])
        return numbers


class _Sections:
    """All keys, cut into sections: single groups where a choice falls between groups, else many together.

    Args:
        keys: begins a pass over the keys of all files, in blocks.

    Attributes:
        start: (S,) the least key that a section may hold, ascending.
        files: (S,) how many it holds.
        single: (S,) bool, whether it is known to be one group.
        split: (S,) what it was given to; 0: to none so far.
    """

    def __init__(self, keys: Callable[[], Iterable[NDArray[np.uint64]]]) -> None:
        self._keys = keys
        counts = np.zeros(2**_BITS, np.int64)
        for some in keys():
            leading = (some >> np.uint64(64 - _BITS)).astype(np.int64)
            counts += np.bincount(leading, minlength=len(counts))
        held = np.flatnonzero(counts)
        self.start = held.astype(np.uint64) << np.uint64(64 - _BITS)
        self.files = counts[held]
        self.single = self.files == 1
        self.split = np.zeros(len(held), np.int8)

    def __len__(self) -> int:
        return len(self.start)

    def _place(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return self.start.searchsorted(keys, side="right") - 1

    def split_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int8]:
        """(n,) that of some groups."""
        return self.split[self._place(keys)]

    def take_apart(self, places: NDArray[np.int64]) -> None:
        """Cuts some sections into their groups: a pass over all keys."""
        wanted = np.zeros(len(self), bool)
        wanted[places] = True
        groups, files = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for some in self._keys():
            more = some[wanted[self._place(some)]]
            groups, inverse = np.unique(np.concatenate([groups, more]), return_inverse=True)
            weights = np.concatenate([files, np.ones(len(more), np.int64)])
            files = np.zeros(len(groups), np.int64)
            np.add.at(files, inverse, weights)
        start = np.concatenate([self.start[~wanted], groups])
        order = start.argsort()
        self.start = start[order]
        self.files = np.concatenate([self.files[~wanted], files])[order]
        self.single = np.concatenate([self.single[~wanted], np.ones(len(groups), bool)])[order]
        self.split = np.concatenate([self.split[~wanted], np.zeros(len(groups), np.int8)])[order]

    def give(self, split: int, wanted: float, spare: int) -> None:
        """To a split, of the groups that none has, the first that together hold the files that are wanted, or
        the smallest one; so many groups are left."""
        while True:
            left = np.flatnonzero(self.split == 0)
            chosen, unclear = _fitting(self.files[left], self.single[left], wanted, len(left) - spare)
            if not unclear:
                self.split[left[chosen]] = split
                return
            self.take_apart(left[unclear])


def _fitting(
    files: NDArray[np.int64], single: NDArray[np.bool_], wanted: float, most: int
) -> tuple[list[int], list[int]]:
    """The sections that are given away, and those that must be taken apart before one can tell.

    Args:
        files, single: (S,) as in `_Sections`.
        wanted: files.
        most: so many groups may be given away, were each section one.
    """
    chosen: list[int] = []
    taken = 0
    for place, (more, one) in enumerate(zip(files.tolist(), single.tolist(), strict=True)):
        if taken >= wanted:
            break
        if len(chosen) >= most:
            several = ~single
            several[chosen] = False
            if several.any():  # one of its groups might be given away
                return [], np.flatnonzero(several).tolist()
            break
        if taken + more <= (_EXCESS if one else 1.0) * wanted:
            chosen.append(place)
            taken += more
        elif not one:  # not all of its groups are wanted; and none of a later section might fit as a whole
            later = np.flatnonzero(~single[place + 1 :] & (files[place + 1 :] > (_EXCESS - 1) * wanted))
            return [], [place, *islice((later + place + 1).tolist(), _TOGETHER)]
    return chosen or [int(files.argmin())], []
