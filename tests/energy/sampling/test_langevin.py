"""Descent and Langevin dynamics on quadratic energies, where every step is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy import PredictiveEnergy
from ssl_ebm.energy.sampling import Descent, Langevin, Sampler, geometric, linear
from ssl_ebm.errors import UserError

from ..linear_gaussian import example


def bowl(y: Tensor) -> Tensor:
    """E = 2 y^2: standard deviation 1/2 at beta = 1."""
    return 2 * y.square().sum(-1)


def test_descent_follows_its_recursion() -> None:
    start = torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    chains = Descent(0.1).sample(bowl, start, 7)
    torch.testing.assert_close(chains.state, start * (1 - 0.4) ** 7)
    means = torch.stack([bowl(start * 0.6**n).mean() for n in range(7)])
    torch.testing.assert_close(chains.energy, means)


def test_a_schedule_is_taken_step_by_step() -> None:
    start = torch.ones(1, 1, dtype=torch.float64)
    chains = Descent(geometric(0.2, 0.05, 3)).sample(bowl, start, 3)
    torch.testing.assert_close(chains.state, start * (1 - 0.8) * (1 - 0.4) * (1 - 0.2))
    assert float(chains.step_size) == pytest.approx(0.05)


@pytest.mark.parametrize(("beta", "step_size"), [(1.0, 0.1), (1.0, 0.02), (0.5, 0.1)])
def test_langevin_has_the_variance_of_its_recursion(beta: float, step_size: float) -> None:
    """y' = (1 - a) y + sqrt(2 e) xi with a = 4 beta e has variance s^2 / (1 - a / 2), s^2 = 1 / (4 beta)."""
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(20_000, 1, dtype=torch.float64)
    chains = Langevin(step_size, beta).sample(bowl, start, 200, generator)
    expected = 1 / (4 * beta) / (1 - 2 * beta * step_size)
    error = expected * (2 / 20_000) ** 0.5  # standard deviation of a variance of Gaussian draws
    assert float(chains.state.var()) == pytest.approx(expected, abs=4 * error)


def test_noise_below_one_is_a_lower_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(20_000, 1, dtype=torch.float64)
    chains = Langevin(0.02, noise=0.5).sample(bowl, start, 200, generator)
    assert float(chains.state.var()) == pytest.approx(0.25 / 4 / 0.96, rel=0.04)


def test_gradients_are_cut_and_states_kept_in_range() -> None:
    start = torch.tensor([[3.0]])
    assert Descent(0.1, max_gradient=1.0).sample(bowl, start, 1).state.item() == pytest.approx(2.9)
    assert Descent(0.1, low=2.5).sample(bowl, start, 1).state.item() == 2.5
    assert Descent(-0.1 + 0.2, high=1.0).sample(bowl, start, 1).state.item() == 1.0


def test_records_are_the_states_on_the_way() -> None:
    start = torch.ones(2, 3, dtype=torch.float64)
    chains = Descent(0.1).sample(bowl, start, 7, record_every=3)
    assert chains.draws.shape == (2, 2, 3)
    torch.testing.assert_close(chains.draws, torch.stack([start * 0.6**3, start * 0.6**6]))
    assert torch.equal(start, torch.ones(2, 3, dtype=torch.float64))


def test_parameters_are_frozen_while_sampling_and_asked_afterwards() -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.fixed = nn.Parameter(torch.tensor(1.0), requires_grad=False)
            self.asked: list[bool] = []

        def forward(self, y: Tensor) -> Tensor:
            self.asked.append(self.scale.requires_grad)
            return self.scale * y.square().sum(-1)

    energy = Watched()
    chains = Langevin(0.1).sample(energy, torch.ones(2, 1), 3)
    assert energy.asked == [False] * 3
    assert energy.scale.requires_grad
    assert not energy.fixed.requires_grad
    assert energy.scale.grad is None
    assert not chains.state.requires_grad


def test_the_same_generator_gives_the_same_chains_under_no_grad_too() -> None:
    def draw(seed: int) -> Tensor:
        with torch.no_grad():
            return Langevin(0.1).sample(bowl, torch.ones(4, 2), 5, torch.Generator().manual_seed(seed)).state

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_latents_of_a_predictive_energy_can_be_sampled() -> None:
    """p(z | y) of a linear decoder is Gaussian: mean and variance in closed form."""
    problem = example(dim=1)
    model: PredictiveEnergy = problem.model()
    y = torch.tensor([[1.0, -0.5, 0.3, 2.0]], dtype=torch.float64)
    beta = 2.0

    def energy(z: Tensor) -> Tensor:  # the reference measure N(0, 1) belongs to the density
        return model.energy(y, None, z[None])[0] + 0.5 * z.square().sum(-1) / beta

    start = torch.zeros(5000, 1, dtype=torch.float64)
    state = Langevin(0.005, beta).sample(energy, start, 300, torch.Generator().manual_seed(0)).state
    mean, covariance = problem.posterior(y, beta)
    deviation = float(covariance[0, 0].sqrt())
    assert float(state.mean()) == pytest.approx(float(mean), abs=4 * deviation / 5000**0.5)
    assert float(state.std()) == pytest.approx(deviation, rel=0.06)


def test_energies_that_are_flat_or_linear() -> None:
    start = torch.zeros(3, 2)
    assert torch.equal(Descent(0.1).sample(lambda y: torch.zeros(len(y)), start, 4).state, start)
    linear = Descent(0.1, max_gradient=0.5).sample(lambda y: y.sum(1), start, 4).state
    torch.testing.assert_close(linear, torch.full((3, 2), -0.2))


def cusp(y: Tensor) -> Tensor:
    """Finite at 0, with an infinite slope."""
    return y[:, 0].sqrt()


def wall(y: Tensor) -> Tensor:
    """Grows without limit, and is not finite beyond 10."""
    return (10 - y[:, 0]).log() * 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Langevin(0.0), "Langevin: step_size is 0.0: use a finite number above 0"),
        (lambda: Langevin(0.1, beta=0), "beta must be above 0"),
        (lambda: Langevin(0.1, beta=float("inf")), "use noise 0 to descend"),
        (lambda: Langevin(0.1, noise=-1.0), "noise is -1.0"),
        (lambda: Langevin(0.1, max_gradient=0.0), "max_gradient is 0.0"),
        (lambda: Langevin(0.1, low=1.0, high=0.0), "use low < high"),
        (lambda: Langevin(0.1).sample(bowl, torch.ones(3), 1), r"a state is \(chains, ...\)"),
        (lambda: Langevin(0.1).sample(bowl, torch.ones(3, 1).long(), 1), "floating point"),
        (lambda: Langevin(0.1).sample(bowl, torch.ones(3, 1), 0), "steps is 0"),
        (
            lambda: Langevin(linear(0.2, -0.1, 4)).sample(bowl, torch.ones(3, 1), 4),
            r"Langevin: step_size is -0\.\d+ at step 3",
        ),
        (
            lambda: Langevin(0.1).sample(lambda y: y, torch.ones(3, 1), 1),
            r"one number per item, \(3,\), got",
        ),
        (
            lambda: Descent(1.0).sample(wall, torch.full((2, 1), 9.0), 9),
            r"Descent: .* \(nan\) at step 2 of 9",
        ),
        (
            lambda: Descent(1e30).sample(bowl, torch.ones(2, 1), 2),
            r"\(inf\) at step 2 of 2.*step_size \(1e\+30\)",
        ),
        (lambda: Descent(1.0).sample(cusp, torch.zeros(2, 1), 1), "a state is not finite after step 1 of 1"),
    ],
)
def test_mistakes_are_said_in_a_line(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


def test_numbers_whose_sum_overflows_are_finite() -> None:
    """The check adds them up first; two of these are infinity in float32."""
    large = torch.full((4, 1), 3e38)
    assert torch.equal(Descent(1.0).sample(lambda y: 0 * y[:, 0], large, 1).state, large)


def test_inference_mode_is_refused_with_the_way_out() -> None:
    sampler: Sampler = Langevin(0.1)
    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode=False"):
        sampler.sample(bowl, torch.ones(2, 1), 1)
