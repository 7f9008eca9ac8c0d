"""Batched L-BFGS against closed forms and scipy's, which takes one problem at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from ssl_ebm.energy import Ball, Gaussian, Lbfgs, Quantised
from ssl_ebm.errors import UserError

from ..linear_gaussian import example


def test_ridge_regression_in_as_many_steps_as_dimensions_and_a_few(generator: torch.Generator) -> None:
    truth = example(4, outputs=6)
    y = torch.randn(7, 6, dtype=torch.float64, generator=generator)
    found = truth.model().infer(Lbfgs(steps=15), y, None, generator)
    z, energy = truth.ridge(y)
    torch.testing.assert_close(found.z, z, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.energy, energy, rtol=1e-10, atol=1e-10)
    assert not found.z.requires_grad
    assert found.energy.requires_grad


def valley(scale: Tensor) -> object:
    """Rosenbrock's function, each item with a valley as steep as its scale: (B, S, 2) -> (B, S)."""

    def energy(z: Tensor) -> Tensor:
        return (1 - z[..., 0]).square() + scale[:, None] * (z[..., 1] - z[..., 0].square()).square()

    return energy


def test_each_item_has_a_curvature_of_its_own(generator: torch.Generator) -> None:
    scale = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)
    found = Lbfgs(steps=120)(valley(scale), Gaussian(2, 0.0).double(), scale, None, generator)  # type: ignore[arg-type]
    torch.testing.assert_close(found.z, torch.ones(4, 2, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_curvatures_that_are_large_numbers_count(generator: torch.Generator) -> None:
    """The energy's unit is anyone's choice: float32 has room for this one."""
    curvatures = torch.tensor([1e8, 7e8, 2e9])

    def bowl(z: Tensor) -> Tensor:
        return 0.5 * (curvatures * (z - 1).square()).sum(-1)

    found = Lbfgs(steps=30)(bowl, Gaussian(3, 0.0), torch.zeros(5, 1), None, generator)
    torch.testing.assert_close(found.z, torch.ones(5, 3), rtol=0, atol=1e-5)


def test_as_few_evaluations_as_scipy_within_a_factor(generator: torch.Generator) -> None:
    scale = torch.tensor([100.0], dtype=torch.float64)
    latent = Gaussian(2, 0.0).double()
    start = latent.sample(1, torch.Generator().manual_seed(0))
    count = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return valley(scale)(z)  # type: ignore[operator, no-any-return]

    found = Lbfgs(steps=60)(counted, latent, scale, None, torch.Generator().manual_seed(0))
    assert float(found.energy) < 1e-10

    def one(z: np.ndarray) -> float:
        return float((1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2)

    def slope(z: np.ndarray) -> np.ndarray:
        inner = z[1] - z[0] ** 2
        return np.array([-2 * (1 - z[0]) - 400 * z[0] * inner, 200 * inner])

    theirs = minimize(one, start[0].numpy(), jac=slope, method="L-BFGS-B")
    assert count < 4 * theirs.nfev


def test_energy_never_rises_and_nan_is_stepped_around(generator: torch.Generator) -> None:
    def wells(z: Tensor) -> Tensor:  # NaN beyond 3: a full first step would land there
        return -(9 - z[..., 0].square()).sqrt() * 50

    latent = Gaussian(1, 0.0)
    runs = [
        Lbfgs(steps=n)(wells, latent, torch.zeros(20, 1), None, torch.Generator().manual_seed(0))
        for n in (1, 2, 3, 5, 10)
    ]
    for before, after in pairwise(runs):
        assert bool((after.energy <= before.energy).all())
    found = runs[-1]
    assert bool(found.energy.isfinite().all())
    torch.testing.assert_close(found.z, torch.zeros(20, 1), rtol=0, atol=1e-2)


def test_restarts_keep_the_best(generator: torch.Generator) -> None:
    def two_wells(z: Tensor) -> Tensor:
        return (z[..., 0].square() - 1).square() + 0.3 * z[..., 0]

    found = Lbfgs(steps=30, restarts=8)(two_wells, Gaussian(1, 0.0), torch.zeros(5, 1), None, generator)
    assert found.energies.shape == (5, 8)
    assert bool((found.z < 0).all())


def test_mistakes() -> None:
    with pytest.raises(UserError, match="history must be at least 1, got 0"):
        Lbfgs(history=0)
    with pytest.raises(UserError, match="steps leave a Ball: use GradientDescent"):
        Lbfgs()(lambda z: z.sum(-1), Ball(1, 1.0), torch.zeros(1, 1))
    with pytest.raises(UserError, match="steps leave a Quantised: use Enumeration"):
        Lbfgs()(lambda z: z.sum(-1), Quantised(2, 1), torch.zeros(1, 1))
    with torch.inference_mode(), pytest.raises(UserError, match="L-BFGS needs gradients"):
        Lbfgs()(lambda z: z.sum(-1), Gaussian(1, 0.0), torch.zeros(1, 1))
