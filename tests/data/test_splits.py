"""The draw of splits: the stated rule, group by group, and memory that does not grow with the files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ssl_ebm.data import splits as module
from ssl_ebm.data.splits import SPLITS, Splits, group_keys
from ssl_ebm.errors import UserError

TRAIN, VAL, TEST = range(3)


def by_the_rule(
    given: NDArray[np.int8], keys: NDArray[np.uint64], fixed: set[str | None], val: float, test: float
) -> NDArray[np.int8]:
    """Group by group: in the order of the keys, whatever fits into a quarter more than is wanted."""
    numbers = np.maximum(given, TRAIN)
    pool = keys[numbers == TRAIN]
    left = {int(key): int((pool == key).sum()) for key in np.unique(pool)}
    missing = [split for split in ("test", "val") if split not in fixed]
    for place, split in enumerate(missing):
        wanted = {"val": val, "test": test}[split] * len(pool)
        chosen: list[int] = []
        for key in sorted(left):
            taken = sum(left[one] for one in chosen)
            if taken >= wanted or len(left) - len(chosen) == len(missing) - place:
                break
            if taken + left[key] <= 1.25 * wanted:
                chosen.append(key)
        for key in chosen or [min(left, key=lambda one: (left[one], one))]:
            numbers[(numbers == TRAIN) & (keys == np.uint64(key))] = SPLITS.index(split)
            del left[key]
    return numbers


def drawn(
    given: NDArray[np.int8],
    keys: NDArray[np.uint64],
    fixed: set[str | None],
    val: float,
    test: float,
    block: int = 37,
) -> NDArray[np.int8]:
    def files() -> Iterator[tuple[NDArray[np.int8], NDArray[np.uint64]]]:
        return ((given[at : at + block], keys[at : at + block]) for at in range(0, len(keys), block))

    splits = Splits(files, fixed, "the set", val, test)
    return np.concatenate([splits.of(*some) for some in files()])


@pytest.mark.parametrize("bits", [1, 3, 6, 16])  # few: all groups are counted together at first
@pytest.mark.parametrize(
    "fractions", [(0.1, 0.2), (0.003, 0.3), (0.5, 0.02), (0.7, 0.6), (0.9, 0.9), (1e-4, 1e-3)]
)
def test_splits_follow_the_rule(
    monkeypatch: pytest.MonkeyPatch, bits: int, fractions: tuple[float, float]
) -> None:
    monkeypatch.setattr(module, "_BITS", bits)
    random = np.random.default_rng(bits)
    for case in range(60):
        sizes = (1, 2, random.integers(1, 30), random.geometric(0.2))[case % 4]
        groups = int(random.integers(3, 120))
        of_file = np.repeat(np.arange(groups), np.resize(sizes, groups))
        if case % 3 == 0:
            of_file = np.concatenate([of_file, np.full(int(random.integers(1, 400)), groups)])  # a large one
        random.shuffle(of_file)
        keys = random.integers(0, 2**64, groups + 1, np.uint64)[of_file]
        fixed, given = [
            ({None}, np.full(len(keys), -1, np.int8)),
            ({"train"}, np.zeros(len(keys), np.int8)),
            ({"train", "test"}, np.where(of_file % 5 == 1, TEST, TRAIN).astype(np.int8)),
            ({"train", "val"}, np.where(of_file % 5 == 1, VAL, TRAIN).astype(np.int8)),
        ][case % 7 % 4]
        expected = by_the_rule(given, keys, fixed, *fractions)
        assert (drawn(given, keys, fixed, *fractions) == expected).all(), case


@pytest.mark.parametrize("bits", [1, 16])
@pytest.mark.parametrize("groups", [0, 1, 2])
def test_too_few_groups_are_told(monkeypatch: pytest.MonkeyPatch, bits: int, groups: int) -> None:
    monkeypatch.setattr(module, "_BITS", bits)
    keys = np.resize(np.arange(groups, dtype=np.uint64), 10 * groups)
    with pytest.raises(UserError, match=f"the set has {groups} independent training .* test and val"):
        drawn(np.full(len(keys), -1, np.int8), keys, {None}, 0.1, 0.2)


def test_without_train_or_with_all_splits() -> None:
    given = np.array([1, 2, 0], np.int8)
    with pytest.raises(UserError, match="the set has test and val but no train"):
        drawn(given, np.zeros(3, np.uint64), {"val", "test"}, 0.1, 0.2)

    def never() -> Iterator[tuple[NDArray[np.int8], NDArray[np.uint64]]]:
        raise AssertionError("nothing is to be drawn")

    kept = Splits(never, {*SPLITS}, "the set", 0.1, 0.2).of(given, np.zeros(3, np.uint64))
    assert kept.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("in_group", "fraction"),
    [(1, 0.2), (7, 0.2), (200, 0.2), (100_000, 0.2), (1, 2e-5)],
)
def test_memory_does_not_grow_with_the_files(in_group: int, fraction: float) -> None:
    """Held are 2^16 sections of keys, and the groups of the few that a choice falls into."""
    peaks = []
    for count in (1_000_000, 4_000_000):
        passes = 0

        def files(count: int = count) -> Iterator[tuple[NDArray[np.int8], NDArray[np.uint64]]]:
            nonlocal passes
            passes += 1
            for start in range(0, count, 8192):
                index = np.arange(start, min(start + 8192, count)) // in_group
                yield np.full(len(index), -1, np.int8), looks_random(index)

        tracemalloc.start()
        splits = Splits(files, {None}, "the set", fraction / 2, fraction)
        assert passes < 12
        numbers = np.zeros(3, np.int64)
        for given, keys in files():
            numbers += np.bincount(splits.of(given, keys), minlength=3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        wanted = [1 - 1.5 * fraction, fraction / 2, fraction]
        assert numbers / count == pytest.approx(wanted, abs=0.025 * fraction)
    assert max(peaks) < 8e6
    assert peaks[1] < 1.2 * peaks[0]


def looks_random(index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys that look random, one for each number: multiplication by an odd number permutes 64 bits."""
    keys = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return (keys ^ (keys >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def test_keys_name_the_seed_and_the_group() -> None:
    assert group_keys([b"a", b"b", b"a"], 0).tolist() == group_keys([b"a", b"b", b"a"], 0).tolist()
    assert len({*group_keys([b"a", b"b"], 0).tolist(), *group_keys([b"a", b"b"], 1).tolist()}) == 4
