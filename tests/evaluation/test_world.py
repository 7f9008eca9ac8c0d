"""Coverage, precision and total variation where the answer is known in closed form."""

import math
from typing import Any

import pytest
import torch

from ssl_ebm.evaluation.world import Modes, exact_bounds, posterior_mean, squared_distances, total_variation


def _modes(world: Any, index: int = 1) -> Modes:
    modes = Modes.of(world.futures(index))
    assert modes is not None
    return modes


def test_threshold_is_a_quarter_of_the_least_squared_distance(world: Any) -> None:
    frames = world.futures(1).frames
    least = min(float((a - b).square().sum()) for i, a in enumerate(frames) for b in frames[:i])
    assert _modes(world).threshold == pytest.approx(least / 4)


def test_a_clip_with_one_future_has_no_scale(world: Any) -> None:
    assert Modes.of(world.futures(0)) is None


def test_each_future_once(world: Any) -> None:
    """Uniform use of four futures of probability 0.35, 0.3, 0.2, 0.15: half of (0.1 + 0.05 + 0.05 + 0.1)."""
    scores = _modes(world).score(world.futures(1).frames)
    assert (scores.coverage, scores.precision) == (1.0, 1.0)
    assert scores.total_variation == pytest.approx(0.15)


def test_samples_beyond_the_threshold_are_wrong_mass(world: Any) -> None:
    modes = _modes(world)
    near = modes.frames[0] + 0.99 * _away(modes)
    far = modes.frames[0] + 1.01 * _away(modes)
    scores = modes.score(torch.stack([near, far]))
    assert scores.coverage == 0.25
    assert scores.precision == 0.5
    # q = (0.5, 0, 0, 0) and 0.5 on no future: (0.15 + 0.3 + 0.2 + 0.15 + 0.5) / 2
    assert scores.total_variation == pytest.approx(0.65)


def _away(modes: Modes) -> torch.Tensor:
    """A step from a future, orthogonal to all others (on pixels that none uses), as long as the threshold."""
    step = torch.zeros_like(modes.frames[0])
    step[0, 7, 7] = math.sqrt(modes.threshold)
    return step


def test_the_blurred_mean_hits_nothing(world: Any) -> None:
    scores = _modes(world).score(posterior_mean(world.futures(1)).expand(10, -1, -1, -1))
    assert (scores.coverage, scores.precision, scores.total_variation) == (0.0, 0.0, 1.0)


def test_posterior_mean_has_the_least_expected_squared_error(world: Any, generator: torch.Generator) -> None:
    futures = world.futures(1)

    def risk(frame: torch.Tensor) -> float:
        errors = (futures.frames - frame).square().flatten(1).sum(1)
        return float((futures.probability * errors).sum())

    mean = posterior_mean(futures)
    for _ in range(20):
        assert risk(mean + 0.05 * torch.randn(mean.shape, generator=generator)) > risk(mean)


def test_distances_agree_with_the_definition(generator: torch.Generator) -> None:
    a, b = torch.rand(3, 1, 4, 4, generator=generator), torch.rand(5, 1, 4, 4, generator=generator)
    expected = (a[:, None] - b[None]).double().square().flatten(2).sum(2)
    torch.testing.assert_close(squared_distances(a, b), expected, atol=1e-6, rtol=0)


def test_bounds_agree_with_simulated_best_of_k(world: Any, generator: torch.Generator) -> None:
    futures, y = world.futures(1), world[1]["video"][2]
    bounds = exact_bounds(futures, y, (1, 3), samples=100, generator=generator, repeats=200)
    errors = (futures.frames - y).square().flatten(1).sum(1)
    draws = torch.multinomial(futures.probability, 60000, replacement=True, generator=generator)
    simulated = errors[draws].view(-1, 3).amin(1).mean()
    assert bounds.best_squared_error[0] == pytest.approx(
        float((errors * futures.probability).sum()), rel=1e-5
    )
    assert bounds.best_squared_error[1] == pytest.approx(float(simulated), rel=0.05)
    assert bounds.mean_squared_error == pytest.approx(
        float((posterior_mean(futures) - y).square().sum()), rel=1e-5
    )
    # E|q - p| of a binomial frequency is about sqrt(2 p (1 - p) / (pi n)) for n draws.
    expected = 0.5 * sum(math.sqrt(2 * p * (1 - p) / (math.pi * 100)) for p in (0.35, 0.3, 0.2, 0.15))
    assert bounds.total_variation == pytest.approx(expected, rel=0.05)
    assert bounds.coverage == pytest.approx(1.0, abs=1e-3)


def test_total_variation_is_between_zero_and_one() -> None:
    p = torch.tensor([0.5, 0.5])
    assert total_variation(torch.tensor([0.5, 0.5]), p) == 0.0
    assert total_variation(torch.tensor([0.0, 0.0]), p) == 1.0
