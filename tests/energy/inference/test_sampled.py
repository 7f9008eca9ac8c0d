"""Draws of z against posteriors in closed form."""

from __future__ import annotations

import pytest
import torch

from ssl_ebm.energy import Ball, Gaussian, OneHot, PosteriorSampling, Sphere
from ssl_ebm.energy.sampling import Descent, Hmc, Langevin, Mala, Sampler
from ssl_ebm.errors import UserError

from ..linear_gaussian import example


@pytest.mark.parametrize("sampler", [Hmc(0.1, beta=2.0, leapfrog_steps=8), Mala(0.02, beta=2.0)])
def test_moments_of_a_linear_gaussian_posterior(sampler: Sampler) -> None:
    truth = example(2)
    y = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, covariance = truth.posterior(y, 2.0)
    count = 4000
    inference = PosteriorSampling(sampler, steps=120, chains=count)
    drawn = []

    model = truth.model()
    decode = model.decode

    def watched(h: object, z: torch.Tensor) -> torch.Tensor:
        if z.shape[1] == count:
            drawn.append(z.detach())
        return decode(h, z)

    model.decode = watched  # type: ignore[method-assign]
    found = model.infer(inference, y, None, torch.Generator().manual_seed(1))
    z = drawn[-1]  # (3, count, 2): the candidates that were rated at the end
    assert torch.equal(found.z, z[:, 0])
    assert found.energies.shape == (3, count)
    error = (covariance.diagonal() / count).sqrt()
    assert bool(((z.mean(1) - mean).abs() < 4 * error).all())
    for item in z:
        torch.testing.assert_close(item.T.cov(), covariance, rtol=0.12, atol=0.02 * float(covariance.max()))


def test_a_constrained_space_is_kept() -> None:
    def energy_of_z(z: torch.Tensor) -> torch.Tensor:
        return -2 * z[..., 0]

    generator = torch.Generator().manual_seed(0)
    found = PosteriorSampling(Hmc(0.2), steps=60, chains=1)(
        energy_of_z, Ball(1, 1.0), torch.zeros(4000, 1), None, generator
    )
    assert bool((found.z.abs() <= 1).all())
    # density exp(2 z) on [-1, 1]: mean = coth(2) - 1/2
    assert float(found.z.mean()) == pytest.approx(1 / float(torch.tanh(torch.tensor(2.0))) - 0.5, abs=0.03)


def test_what_is_not_finite_is_left_for_the_loss_to_show() -> None:
    """As in the objectives: to raise would wait for the device in each step of a training."""
    found = PosteriorSampling(Langevin(1e3), 40)(
        lambda z: z.square().sum(-1) ** 2, Gaussian(2, 0.0), torch.zeros(3, 1)
    )
    assert not bool(found.energy.isfinite().any())


@pytest.mark.parametrize("sampler", [Langevin(0.001), Descent(0.001)])
def test_a_sampler_that_refuses_no_step_does_not_keep_to_a_ball(sampler: Sampler) -> None:
    words = f"{type(sampler).__name__} leaves a Ball: use Metropolis, Mala or Hmc"
    with pytest.raises(UserError, match=words):
        PosteriorSampling(sampler, 3)(lambda z: z.sum(-1), Ball(3, 1.0), torch.zeros(2, 1))


def test_mistakes() -> None:
    with pytest.raises(UserError, match="use Enumeration"):
        PosteriorSampling(Langevin(0.1), 3)(lambda z: z.sum(-1), OneHot(3), torch.zeros(2, 1))
    with pytest.raises(UserError, match="chains leave a Sphere"):
        PosteriorSampling(Langevin(0.1), 3)(lambda z: z.sum(-1), Sphere(3), torch.zeros(2, 1))
    with pytest.raises(UserError, match="chains 0: use at least 1"):
        PosteriorSampling(Langevin(0.1), 3, 0)
