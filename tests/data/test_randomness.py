import numpy as np

from ssl_ebm.data.randomness import integers, uniforms


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
