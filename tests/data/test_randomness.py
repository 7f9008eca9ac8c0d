from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ssl_ebm.data.randomness import integers, permuted, stream_key, uniforms


def test_splitmix64_against_its_published_sequence() -> None:
    """First outputs for seed 1234567 (https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64)."""
    from ssl_ebm.data.randomness import _GOLDEN, _mix

    states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * _GOLDEN
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert _mix(states).tolist() == published


def test_numbers_depend_on_the_index_alone() -> None:
    together = uniforms(0, "a", np.arange(1000), 7)
    assert (uniforms(0, "a", [613], 7)[0] == together[613]).all()
    assert (uniforms(0, "a", [5, 3], 4) == together[[5, 3], :4]).all()


def test_streams_and_seeds_share_nothing() -> None:
    draws = [uniforms(seed, name, np.arange(500), 4) for seed in (0, 1) for name in ("a", "b")]
    assert len(np.unique(np.concatenate(draws))) == 4 * 500 * 4


def test_moments_and_independence() -> None:
    draws = uniforms(0, "a", np.arange(100_000), 3)
    assert abs(draws.mean() - 1 / 2) < 0.003
    assert abs(draws.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.015
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.015


def test_integers_cover_both_ends_equally() -> None:
    count = np.bincount(integers(uniforms(0, "a", np.arange(30_000), 1)[:, 0], -1, 1) + 1)
    assert len(count) == 3
    assert abs(count - 10_000).max() < 400


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 17, 1000, 4097, 131_073])
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_a_cipher_permutes(count: int, key: int) -> None:
    order = permuted(key, count, np.arange(count))
    assert sorted(order.tolist()) == list(range(count))
    some = np.arange(count)[:: max(1, count // 50)]
    assert (permuted(key, count, some) == order[some]).all()  # a place needs no other


def test_all_orders_of_four_things_are_equally_likely() -> None:
    """24,000 keys: chi-squared of 24 classes has 23 degrees of freedom, and 49.7 is its 99.9 % quantile."""
    found = Counter(tuple(permuted(stream_key(i, "x"), 4, np.arange(4)).tolist()) for i in range(24_000))
    assert len(found) == 24
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 49.7


def test_neighbours_come_to_lie_anywhere() -> None:
    """Places against items (20 x 20 classes), and the distance of neighbours (100): 99.9 % quantiles."""
    count = 200_000
    order = permuted(3, count, np.arange(count))
    table = np.histogram2d(np.arange(count), order, bins=20)[0]
    assert ((table - count / 400) ** 2).sum() / (count / 400) < stats.chi2.ppf(0.999, 19 * 19)
    steps = np.histogram(np.diff(order) % count, bins=100, range=(0, count))[0]
    assert ((steps - count / 100) ** 2).sum() / (count / 100) < stats.chi2.ppf(0.999, 99)
