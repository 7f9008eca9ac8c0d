"""The splits of items in shards, drawn from the index alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.shards.folder import ShardFolder
from ssl_ebm.data.shards.tables import Rows
from ssl_ebm.data.splits import SPLITS, Splits, group_keys
from ssl_ebm.errors import UserError

HELD = 2**18  # items whose keys are in memory meanwhile; of more they are made again for each pass

Usable = Callable[[int, int], NDArray[np.bool_]]  # which of the rows start..stop - 1 come into a split


@dataclass(frozen=True)
class _Block:
    """Rows of the index that follow one another: which are usable, their fixed splits, their groups' keys."""

    usable: NDArray[np.bool_]
    given: NDArray[np.int8]
    keys: NDArray[np.uint64]


def rows_of_splits(
    shards: ShardFolder, val_fraction: float, test_fraction: float, seed: int, usable: Usable | None = None
) -> dict[str, Rows]:
    """The items of each split in their order, as `assign_splits` gives them to files.

    Args:
        shards: whose items.
        val_fraction, test_fraction, seed: as there.
        usable: tells which items there are; None: all.

    Raises:
        UserError: as `assign_splits`.
    """
    if None in shards.fixed and len(shards.fixed) > 1:
        items = enumerate(chain.from_iterable(shards.items.blocks()))
        outside = next((shards.names[row] for row, item in items if item["split"] < 0), "a file")
        raise UserError(
            f"{outside} lies outside train, val and test in {shards.folder}: move it into one of them before "
            "you make shards"
        )
    held = [*_blocks(shards, seed, usable)] if len(shards) <= HELD else None

    def blocks() -> Iterator[_Block]:
        return _blocks(shards, seed, usable) if held is None else iter(held)

    def files() -> Iterator[tuple[NDArray[np.int8], NDArray[np.uint64]]]:
        return ((block.given[block.usable], block.keys[block.usable]) for block in blocks())

    splits = Splits(files, shards.fixed, str(shards.folder), val_fraction, test_fraction)
    bits = np.zeros((len(SPLITS), -(-len(shards) // 8)), np.uint8)
    start = 0
    for block in blocks():
        numbers = np.where(block.usable, splits.of(block.given, block.keys), -1)
        some = np.packbits(numbers == np.arange(len(SPLITS))[:, None], axis=1)
        bits[:, start : start + some.shape[1]] = some
        start += some.shape[1]
    return {split: Rows(own) for split, own in zip(SPLITS, bits, strict=True)}


def _blocks(shards: ShardFolder, seed: int, usable: Usable | None) -> Iterator[_Block]:
    """All rows; each block but the last makes whole bytes of bits."""
    drawn = not shards.fixed.issuperset(SPLITS)
    groups, start = shards.groups.as_bytes(), 0
    for items in shards.items.blocks():
        stop = start + len(items)
        chosen = np.ones(len(items), bool) if usable is None else usable(start, stop)
        keys = group_keys(islice(groups, len(items)), seed) if drawn else np.zeros(len(items), np.uint64)
        yield _Block(chosen, items["split"].copy(), keys)
        start = stop
