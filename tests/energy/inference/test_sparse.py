"""Sparse inference against scikit-learn's Lasso, and LISTA against the ISTA that it is made from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from ssl_ebm.energy import Amortised, Fista, Gaussian, Ista, Lista, OneHot, PredictiveEnergy, Sparse
from ssl_ebm.energy.inference.sparse import largest_curvature
from ssl_ebm.errors import UserError

LAM = 0.4


@pytest.fixture
def dictionary() -> Tensor:
    """(12, 30), float64, columns of norm 1."""
    columns = torch.randn(12, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return columns / columns.norm(dim=0)


@pytest.fixture
def model(dictionary: Tensor) -> PredictiveEnergy:
    decoder = nn.Linear(30, 12, bias=False, dtype=torch.float64)
    with torch.no_grad():
        decoder.weight.copy_(dictionary)
    return PredictiveEnergy(decoder, Sparse(30).double(), regularisation=LAM)


@pytest.fixture
def y() -> Tensor:
    return torch.randn(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def objective(dictionary: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (y - z @ dictionary.T).square().sum(-1) + LAM * z.abs().sum(-1)


def lasso(dictionary: Tensor, y: Tensor) -> Tensor:
    """Lasso has 1 / (2 P) |y - W z|^2 + alpha |z|_1."""
    solver = Lasso(alpha=LAM / (2 * 12), fit_intercept=False, tol=1e-12, max_iter=200_000)
    codes = [solver.fit(dictionary.numpy(), one.numpy()).coef_.copy() for one in y]
    return torch.from_numpy(np.stack(codes))


@pytest.mark.parametrize(("inference", "tolerance"), [(Fista(400), 1e-5), (Ista(4000), 1e-3)])
def test_the_objective_of_lasso(
    inference: Ista, tolerance: float, model: PredictiveEnergy, dictionary: Tensor, y: Tensor
) -> None:
    found = model.infer(inference, y, None)
    truth = lasso(dictionary, y)
    expected = objective(dictionary, y, truth)
    torch.testing.assert_close(found.energy.detach(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(objective(dictionary, y, found.z), found.energy.detach())
    if isinstance(inference, Fista):
        assert torch.equal(found.z.abs() > 1e-4, truth.abs() > 1e-4)
        assert bool((found.z == 0).any(1).all())  # shrinking makes exact zeros


def test_ista_falls_at_every_step_and_fista_is_ahead(model: PredictiveEnergy, y: Tensor) -> None:
    ista, fista = (
        [float(model.infer(kind(steps), y, None).energies.sum()) for steps in (5, 10, 20, 40, 80)]
        for kind in (Ista, Fista)
    )
    assert all(a > b for a, b in pairwise(ista))
    assert all(f < i for f, i in zip(fista[2:], ista[2:], strict=True))


def test_curvature_is_that_of_the_dictionary(model: PredictiveEnergy, dictionary: Tensor, y: Tensor) -> None:
    class Given:
        regularisation = LAM

        def smooth(self, z: Tensor) -> Tensor:
            return model.misfit(y, None, z)

        def __call__(self, z: Tensor) -> Tensor:
            return model.energy(y, None, z)

    exact = 2 * float(torch.linalg.matrix_norm(dictionary, 2)) ** 2
    found = largest_curvature(Given(), torch.zeros(6, 1, 30, dtype=torch.float64))
    assert found.flatten().tolist() == pytest.approx([exact] * 6, rel=0.02)
    assert bool((found <= exact * (1 + 1e-9)).all())
    given = model.infer(Fista(50, lipschitz=exact), y, None).energy
    torch.testing.assert_close(given, model.infer(Fista(50), y, None).energy, rtol=1e-2, atol=0)


def test_the_envelope_theorem_holds_for_the_dictionary(
    model: PredictiveEnergy, dictionary: Tensor, y: Tensor
) -> None:
    found = model.infer(Fista(2000), y, None)
    assert not found.z.requires_grad
    weight = next(model.decoder.parameters())
    (gradient,) = torch.autograd.grad(found.energy.sum(), weight)
    step = 1e-5
    for row, column in [(0, 0), (3, 17), (11, 29)]:
        bump = torch.zeros_like(dictionary)
        bump[row, column] = step
        above, below = (
            objective(moved, y, lasso(moved, y)).sum() for moved in (dictionary + bump, dictionary - bump)
        )
        assert float(gradient[row, column]) == pytest.approx(float((above - below) / (2 * step)), abs=1e-4)


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_lista_begins_as_ista(
    iterations: int, model: PredictiveEnergy, dictionary: Tensor, y: Tensor
) -> None:
    exact = 2 * float(torch.linalg.matrix_norm(dictionary, 2)) ** 2
    encoder = Lista.from_dictionary(dictionary, LAM, iterations)
    ista = model.infer(Ista(iterations + 1, lipschitz=exact), y, None).z
    torch.testing.assert_close(encoder(y).detach(), ista)
    torch.testing.assert_close(model.infer(Amortised(encoder), y, None).z, ista)


def test_lista_learns_to_beat_ista_at_equal_iterations(model: PredictiveEnergy, dictionary: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randn(512, 30, dtype=torch.float64, generator=generator)
    codes *= torch.rand(512, 30, generator=generator) < 0.1
    data = codes @ dictionary.T
    encoder = Lista.from_dictionary(dictionary, LAM, 2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    for _ in range(200):
        loss = objective(dictionary, data[:256], encoder(data[:256])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = data[256:]
    ista, fista = (model.infer(kind(3), unseen, None).energy.mean() for kind in (Ista, Fista))
    ours = objective(dictionary, unseen, encoder(unseen)).mean()
    best = model.infer(Fista(300), unseen, None).energy.mean()
    assert float(best) < float(ours) < float(fista) < float(ista)


def test_mistakes(model: PredictiveEnergy, y: Tensor) -> None:
    with pytest.raises(UserError, match="Fista: steps must be at least 1"):
        Fista(0)
    with pytest.raises(UserError, match="lipschitz must be a number above 0, got -1"):
        Ista(3, -1.0)
    with pytest.raises(UserError, match="Ista needs a Sparse latent, not Gaussian: use GradientDescent"):
        Ista(3)(lambda z: z.sum(-1), Gaussian(2, 0.0), y)
    with pytest.raises(UserError, match="Fista needs a Sparse latent, not OneHot: use Enumeration"):
        Fista(3)(lambda z: z.sum(-1), OneHot(2), y)
    with pytest.raises(UserError, match="smooth part of the energy"):
        Ista(3)(lambda z: z.sum(-1), Sparse(2), y)
    with pytest.raises(UserError, match="y has 12 numbers, the encoder takes 5"):
        Lista(5, 3, 1).double()(y)
    with torch.inference_mode(), pytest.raises(UserError, match="Fista needs gradients"):
        model.infer(Fista(3), y, None)
