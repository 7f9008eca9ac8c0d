"""The draw of splits: whole groups of files go to one side.

Memory does not grow with the files, unless a split is to have fewer of them than any group: the smallest
group is then looked for among all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.randomness import stream_keys
from ssl_ebm.errors import UserError

SPLITS = ("train", "val", "test")
_EXCESS = 1.25  # how far a group may take a split beyond its fraction
_BITS = 16  # leading ones of a key by which groups are counted together at first
_AT_ONCE = 4096  # keys, at least, that are counted together

FileBlocks = Callable[[], Iterable[tuple[NDArray[np.int8], NDArray[np.uint64]]]]


def group_keys(groups: Iterable[bytes], seed: int) -> NDArray[np.uint64]:
    """(N,) the random place of each file's group in the order in which groups are given to splits."""
    return stream_keys(seed, "split/", groups)


def group_numbers(groups: Iterable[bytes]) -> list[int]:
    """A number for each group's name, the same wherever the name is met: 63 bits of a hash."""
    return (stream_keys(0, "group/", groups) >> np.uint64(1)).tolist()


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
        total = int(sections.sizes.sum())
        for split in missing:
            wanted = {"val": val_fraction, "test": test_fraction}[split] * total
            spare = len(missing) - missing.index(split)  # groups: one for each later split, one for train
            sections.give(SPLITS.index(split), wanted, spare)
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
        sizes: (S,) files that it holds.
        single: (S,) bool, whether it is one group.
        split: (S,) what it was given to; 0: to none so far.
    """

    def __init__(self, keys: Callable[[], Iterable[NDArray[np.uint64]]]) -> None:
        self._keys = keys
        counts = np.zeros(2**_BITS, np.int64)
        least, most = np.full(len(counts), 2**64 - 1, np.uint64), np.zeros(len(counts), np.uint64)
        for some in keys():
            leading = (some >> np.uint64(64 - _BITS)).astype(np.int64)
            counts += np.bincount(leading, minlength=len(counts))
            np.minimum.at(least, leading, some)
            np.maximum.at(most, leading, some)
        held = np.flatnonzero(counts)
        self.start = least[held]
        self.sizes = counts[held]
        self.single = self.start == most[held]
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
        chosen = np.zeros(len(self), bool)
        chosen[places] = True
        groups, sizes = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        waiting, count = [groups], 0
        for some in self._keys():
            waiting.append(some[chosen[self._place(some)]])
            count += len(waiting[-1])
            if count > max(len(groups), _AT_ONCE):
                groups, sizes = _counted(groups, sizes, waiting)
                waiting, count = [groups[:0]], 0
        groups, sizes = _counted(groups, sizes, waiting)
        start = np.concatenate([self.start[~chosen], groups])
        order = start.argsort()
        self.start = start[order]
        self.sizes = np.concatenate([self.sizes[~chosen], sizes])[order]
        self.single = np.concatenate([self.single[~chosen], np.ones(len(groups), bool)])[order]
        self.split = np.concatenate([self.split[~chosen], np.zeros(len(groups), np.int8)])[order]

    def give(self, split: int, wanted: float, spare: int) -> None:
        """To a split, of the groups that none has, the first that together hold the files that are wanted, or
        the smallest one; so many groups are left."""
        at_once = 1  # sections in a pass
        while True:
            left = np.flatnonzero(self.split == 0)
            chosen, unclear = _fitting(self.sizes[left], self.single[left], wanted, spare)
            if not unclear:
                self.split[left[chosen]] = split
                return
            self.take_apart(left[unclear[:at_once]])
            at_once *= 8


def _counted(
    groups: NDArray[np.uint64], sizes: NDArray[np.int64], more: Sequence[NDArray[np.uint64]]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Groups, ascending, and their sizes, after those of more files have been counted."""
    others, counts = np.unique(np.concatenate(more), return_counts=True)
    joined = np.concatenate([groups, others])
    groups, inverse = np.unique(joined, return_inverse=True)
    return groups, np.bincount(inverse, np.concatenate([sizes, counts]), len(groups)).astype(np.int64)


def _fitting(
    sizes: NDArray[np.int64], single: NDArray[np.bool_], wanted: float, spare: int
) -> tuple[list[int], list[int]]:
    """The sections that are given away; or those that must be taken apart before one can tell, in order.

    Args:
        sizes, single: (S,) as in `_Sections`.
        wanted: files.
        spare: groups that are left.
    """
    chosen: list[int] = []
    taken, most = 0, _EXCESS * wanted
    for place, (size, one) in enumerate(zip(sizes.tolist(), single.tolist(), strict=True)):
        if taken >= wanted or (chosen and taken + 1 > most):  # all wanted, or none is so small
            break
        if len(chosen) + spare >= len(sizes):
            several = ~single
            several[chosen] = False
            if several.any():  # one of its groups might be given away
                return [], np.flatnonzero(several).tolist()
            break
        if taken + size <= (most if one else wanted):
            chosen.append(place)
            taken += size
        elif not one and taken + size <= most:  # its groups all fit, and the last of them are not wanted
            return [], [place]
        elif not one:  # some of its groups may not fit, nor those of later sections
            later = np.flatnonzero(~single[place + 1 :] & (sizes[place + 1 :] > most - wanted))
            return [], [place, *(later + place + 1).tolist()]
    return chosen or [int(sizes.argmin())], []
