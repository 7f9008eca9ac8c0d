"""The world's dynamics against hand counts and a simulator written the slow way."""

import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_ebm.data.moving_digits_world import World
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError

SMALL = World(size=32, digit_size=14, digits=1, normal_speed=3, tangential_speed=2)  # limit 18
LARGE = World(size=64, digit_size=20, digits=2, normal_speed=4, tangential_speed=4)  # limit 44

worlds = st.builds(
    lambda limit, digits, normal, along: World(limit + 3, 3, digits, normal, along),
    st.integers(1, 8),
    st.integers(1, 2),
    st.integers(1, 4),
    st.integers(0, 4),
)


def distribution(world: World, position: tuple[int, int]) -> dict[tuple[int, int], float]:
    places, chance = world.next_positions(np.array(position), np.array([9, 9]))
    assert len({tuple(p) for p in places.tolist()}) == len(places)
    return {tuple(p): c for p, c in zip(places.tolist(), chance.tolist(), strict=True)}


def slow_step(world: World, position: list[int], velocity: list[int], rng: random.Random) -> list[int]:
    """The rule as DESIGN states it, one digit, one coordinate at a time."""
    if any(c in (0, world.limit) for c in position):
        velocity = []
        for c in position:
            if c == 0:
                velocity.append(rng.randint(1, world.normal_speed))
            elif c == world.limit:
                velocity.append(-rng.randint(1, world.normal_speed))
            else:
                velocity.append(rng.randint(-world.tangential_speed, world.tangential_speed))
    return [min(max(c + v, 0), world.limit) for c, v in zip(position, velocity, strict=True)]


@pytest.mark.parametrize(("world", "walls", "corners"), [(SMALL, 15, 9), (LARGE, 36, 16)])
def test_number_of_velocities_at_walls_and_corners(world: World, walls: int, corners: int) -> None:
    middle, end = world.limit // 2, world.limit
    for position in ((0, middle), (end, middle), (middle, 0), (middle, end)):
        assert distribution(world, position) == pytest.approx(
            dict.fromkeys(distribution(world, position), 1 / walls)
        )
        assert len(distribution(world, position)) == walls
    for position in ((0, 0), (0, end), (end, 0), (end, end)):
        assert len(distribution(world, position)) == corners


def test_velocities_at_one_wall_by_hand() -> None:
    expected = {(row, column) for row in (15, 16, 17) for column in (7, 8, 9, 10, 11)}
    assert set(distribution(SMALL, (18, 9))) == expected


def test_corner_by_hand() -> None:
    expected = {(row, column) for row in (1, 2, 3) for column in (15, 16, 17)}
    assert distribution(SMALL, (0, 18)) == pytest.approx(dict.fromkeys(expected, 1 / 9))


def test_clamped_velocities_merge_and_add_their_probabilities() -> None:
    """One pixel from the corner: the sideways velocities +1 and +2 both end at the wall."""
    expected: dict[tuple[int, int], float] = {}
    for row in (1, 2, 3):
        expected |= {(row, column): 1 / 15 for column in (15, 16, 17)} | {(row, 18): 2 / 15}
    assert distribution(SMALL, (0, 17)) == pytest.approx(expected)


def test_off_the_walls_the_velocity_decides() -> None:
    places, chance = SMALL.next_positions(np.array([1, 9]), np.array([-3, 2]))
    assert places.tolist() == [[0, 11]]
    assert chance.tolist() == [1.0]


@pytest.mark.parametrize("position", [(0, 9), (18, 17), (18, 0), (5, 18)])
def test_next_positions_against_a_slow_simulator(position: tuple[int, int]) -> None:
    rng, draws = random.Random(0), 30_000
    seen = Counter(tuple(slow_step(SMALL, list(position), [0, 0], rng)) for _ in range(draws))
    exact = distribution(SMALL, position)
    assert set(seen) == set(exact)
    for place, probability in exact.items():
        spread = (probability * (1 - probability) / draws) ** 0.5
        assert seen[place] / draws == pytest.approx(probability, abs=4.5 * spread)


@settings(deadline=None)
@given(worlds, st.data())
def test_uncertain_means_several_next_positions(world: World, data: st.DataObject) -> None:
    coordinate = st.integers(0, world.limit)
    position = np.array(data.draw(st.tuples(coordinate, coordinate)))
    places, chance = world.next_positions(position, np.array([1, -1]))
    assert chance.sum() == pytest.approx(1.0)
    assert bool(world.is_uncertain(position)) == (len(places) > 1)


@settings(deadline=None, max_examples=30)
@given(worlds, st.integers(0, 1000))
def test_every_simulated_step_obeys_the_rule(world: World, seed: int) -> None:
    frames = 12
    position, velocity = world.simulate(uniforms(seed, "t", np.arange(8), world.draws(frames)), frames)
    assert (position >= 0).all()
    assert (position <= world.limit).all()
    for clip in range(8):
        for digit in range(world.digits):
            for t in range(frames - 1):
                here, there = position[clip, t, digit], position[clip, t + 1, digit]
                places, _ = world.next_positions(here, velocity[clip, t, digit])
                assert there.tolist() in places.tolist()
                if t and not world.on_wall(here).any():
                    assert (velocity[clip, t, digit] == velocity[clip, t - 1, digit]).all()
                assert (there == np.clip(here + velocity[clip, t, digit], 0, world.limit)).all()


def test_a_longer_clip_begins_with_the_shorter_one() -> None:
    short, long = (
        LARGE.simulate(uniforms(3, "t", np.arange(50), LARGE.draws(frames)), frames)[0] for frames in (5, 14)
    )
    assert (long[:, :5] == short).all()


def test_start_is_uniform_and_never_at_rest() -> None:
    """Against the counts of a uniform start: chi-squared over positions and over velocities."""
    clips = 60_000
    position, velocity = SMALL.simulate(uniforms(0, "t", np.arange(clips), SMALL.draws(1)), 1)
    cells = np.bincount(position[:, 0, 0, 0] * 19 + position[:, 0, 0, 1], minlength=361)
    expected = clips / 361
    assert ((cells - expected) ** 2 / expected).sum() == pytest.approx(360, abs=5 * (2 * 360) ** 0.5)
    inside = velocity[:, 0, 0][~SMALL.on_wall(position[:, 0, 0]).any(axis=-1)]
    speeds = np.bincount((inside[:, 0] + 3) * 7 + inside[:, 1] + 3, minlength=49)
    assert speeds[24] == 0
    expected = len(inside) / 48
    chi_squared = ((np.delete(speeds, 24) - expected) ** 2 / expected).sum()
    assert chi_squared == pytest.approx(47, abs=5 * (2 * 47) ** 0.5)


def test_simulated_bounces_follow_the_exact_distribution() -> None:
    """All bounces of many clips, each against its own exact distribution, by the probability integral
    transform.

    With U uniform, F(below the place) + U * P(place) is uniform on [0, 1] if and only if P is right.
    """
    frames = 6
    position, _ = SMALL.simulate(uniforms(1, "t", np.arange(4000), SMALL.draws(frames)), frames)
    rng = random.Random(1)
    transformed = []
    for clip, t in zip(*np.nonzero(SMALL.on_wall(position[:, :-1, 0]).any(axis=-1)), strict=True):
        places, chance = SMALL.next_positions(position[clip, t, 0], np.zeros(2, int))
        order = list(range(len(places)))
        rng.shuffle(order)  # so that no ordering of the places hides a wrong probability
        below = Fraction(0)
        for i in order:
            if (places[i] == position[clip, t + 1, 0]).all():
                transformed.append(float(below) + rng.random() * chance[i])
                break
            below += Fraction(chance[i])
        else:
            pytest.fail("a place that the exact distribution excludes")
    assert len(transformed) > 2000
    steps = np.arange(1, len(transformed) + 1) / len(transformed)
    gap = np.abs(np.sort(transformed) - steps).max()  # Kolmogorov-Smirnov
    assert gap < 1.95 / len(transformed) ** 0.5  # exceeded with probability 0.001


@pytest.mark.parametrize(
    ("settings", "word"),
    [((32, 32, 1, 3, 2), "digit_size"), ((32, 14, 0, 3, 2), "digits"), ((32, 14, 1, 0, 2), "normal_speed")],
)
def test_a_world_that_cannot_move_is_refused(settings: tuple[int, ...], word: str) -> None:
    with pytest.raises(UserError, match=word):
        World(*settings)
