"""Unconditional energies against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as TheirMixture
from torch import Tensor, nn

from ssl_ebm.energy import (
    Amortised,
    Ball,
    Enumeration,
    Gaussian,
    GradientDescent,
    Inference,
    Lbfgs,
    OneHot,
    PredictiveEnergy,
)
from ssl_ebm.energy.objectives import GridLikelihood, PushDown
from ssl_ebm.energy.unconditional import (
    GaussianMixture,
    LatentEnergy,
    ReconstructionEnergy,
    VariationalEnergy,
)
from ssl_ebm.errors import UserError


def copied(theirs: TheirMixture) -> GaussianMixture:
    """scikit-learn keeps U with Sigma^-1 = U U', U upper triangular; ours is lower."""
    ours = GaussianMixture(len(theirs.means_), theirs.means_.shape[1]).double()
    with torch.no_grad():
        ours.mean.copy_(torch.from_numpy(theirs.means_))
        factor = torch.linalg.cholesky(torch.from_numpy(np.linalg.inv(theirs.covariances_)))
        ours.below.copy_(factor)
        ours.log_diagonal.copy_(factor.diagonal(dim1=1, dim2=2).log())
        ours.logits.copy_(torch.from_numpy(np.log(theirs.weights_)))
    return ours


def test_mixture_has_the_density_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + shift for shift in (-2.0, 3.0)])
    theirs = TheirMixture(4, random_state=0).fit(y)
    found = copied(theirs)(torch.from_numpy(y)).detach().numpy()
    np.testing.assert_allclose(-found, theirs.score_samples(y), rtol=1e-9)


def test_mixture_integrates_to_one() -> None:
    torch.manual_seed(0)
    model = GaussianMixture(3, 2).double()
    with torch.no_grad():
        model.below.normal_()
        model.logits.normal_()
    assert float(GridLikelihood(-12, 12, 400).double().log_partition(model).detach()) == pytest.approx(
        0, abs=1e-6
    )


def test_latent_energy_at_both_temperatures() -> None:
    decoder = nn.Linear(3, 2, bias=False)
    y = torch.randn(5, 2)
    squared = (y[:, None] - decoder.weight.T).square().sum(2)  # (5, 3)
    model = PredictiveEnergy(decoder, OneHot(3))
    torch.testing.assert_close(LatentEnergy(model, Enumeration())(y), squared.min(1).values)
    warm = LatentEnergy(model, Enumeration(), beta=2.0)(y)
    torch.testing.assert_close(warm, -torch.logsumexp(-2 * squared, 1) / 2 + math.log(3) / 2)


def test_reconstruction_energy_of_an_image() -> None:
    y = torch.randn(4, 1, 3, 3)
    model = ReconstructionEnergy(nn.Flatten(), nn.Unflatten(1, (1, 3, 3)))
    assert bool((model(y) == 0).all())
    half = ReconstructionEnergy(nn.Identity(), nn.Threshold(math.inf, 0.0))
    torch.testing.assert_close(half(y), y.square().flatten(1).sum(1))


class Half(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y)], 1)  # mean y, standard deviation 1


def test_variational_energy_without_noise() -> None:
    y = torch.randn(4, 2)
    model = VariationalEnergy(Half(), nn.Identity(), beta=3.0)
    torch.testing.assert_close(model(y), 0.5 * y.square().sum(1))  # Dec(m) = y, KL = 1/2 |m|^2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LatentEnergy(PredictiveEnergy(nn.Identity(), OneHot(2)), Enumeration(), 0), "beta must be"),
        (
            lambda: LatentEnergy(
                PredictiveEnergy(nn.Identity(), Ball(2, 1.0)), Amortised(nn.Identity()), 1.0
            ),
            "beta is 1.0 and Ball has infinitely many values",
        ),
        (
            lambda: LatentEnergy(PredictiveEnergy(nn.Identity(), OneHot(2)), Enumeration("minimum"), 1.0),
            'use Enumeration with gradient "all"',
        ),
        (lambda: GaussianMixture(0, 2), "components is 0"),
        (lambda: GaussianMixture(2, 3)(torch.zeros(4, 2)), r"y must be \(batch, 3\), got \(4, 2\)"),
        (lambda: VariationalEnergy(nn.Identity(), nn.Identity(), math.inf), "beta must be finite"),
        (lambda: VariationalEnergy(nn.Identity(), nn.Identity())(torch.zeros(4, 3)), r"\(batch, 2 dim\)"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("inference", [GradientDescent(5, 0.1, "adam"), Lbfgs(2)], ids=["adam", "lbfgs"])
def test_an_energy_with_random_starts_is_the_same_at_each_call(inference: Inference) -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    model = LatentEnergy(PredictiveEnergy(decoder, Gaussian(2, noise=0.0)), inference)
    y = torch.randn(50, 3)
    once, again = model(y), model(y)
    assert torch.equal(once, again)
    drawn = [model(y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_training_begins_its_descents_anew() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    model = LatentEnergy(PredictiveEnergy(decoder, Gaussian(2, noise=0.0)), GradientDescent(5, 0.1))
    y, losses = torch.randn(50, 3), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses += [PushDown()(model, y).item(), PushDown()(model, y).item()]
    assert losses[:2] == losses[2:4] != losses[4:]
    assert losses[0] != losses[1]
    given = [PushDown()(model, y, torch.Generator().manual_seed(5)).item() for _ in range(2)]
    assert given[0] == given[1]
