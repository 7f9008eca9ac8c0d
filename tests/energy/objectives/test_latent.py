"""Objectives that push down on data alone, against scikit-learn and formulas by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ssl_ebm.energy import (
    Amortised,
    AmortisedRefined,
    Ball,
    Enumeration,
    Gaussian,
    OneHot,
    PredictiveEnergy,
    Quantised,
    Sparse,
)
from ssl_ebm.energy.latents import Latent
from ssl_ebm.energy.noise import UniformNoise
from ssl_ebm.energy.objectives import (
    Amortisation,
    ContrastiveDivergence,
    LatentBank,
    Margin,
    MonteCarloLikelihood,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    PushDown,
    ReplayBuffer,
    SampledLikelihood,
    Variational,
    VectorQuantisation,
)
from ssl_ebm.energy.sampling import Descent
from ssl_ebm.energy.unconditional import LatentEnergy, ReconstructionEnergy, VariationalEnergy
from ssl_ebm.errors import UserError


def matrix(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


@pytest.fixture
def y() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    centred = torch.randn(300, 5, dtype=torch.float64, generator=generator) @ mix
    return centred - centred.mean(0)


def test_k_means_has_the_inertia_of_scikit_learn(y: Tensor) -> None:
    fitted = KMeans(7, n_init=1, random_state=0).fit(y.numpy())
    centres = torch.from_numpy(fitted.cluster_centers_)
    decoder = matrix(centres.T)
    model = LatentEnergy(PredictiveEnergy(decoder, OneHot(7).double()), Enumeration())
    loss = PushDown()(model, y)
    assert float(loss.detach()) * len(y) == pytest.approx(float(fitted.inertia_))
    (slope,) = torch.autograd.grad(loss, decoder.weight)
    assert float(slope.abs().max()) < 1e-2 * float(centres.abs().max())  # Lloyd's algorithm ended at rest


def test_pca_is_at_rest_at_the_principal_components(y: Tensor) -> None:
    fitted = PCA(2).fit(y.numpy())
    components = torch.from_numpy(fitted.components_)  # (2, 5)
    model = ReconstructionEnergy(matrix(components), matrix(components.T))
    loss = PushDown()(model, y)
    residual = float(y.square().sum()) - 300 * float((fitted.singular_values_**2).sum()) / 300
    assert float(loss.detach()) * 300 == pytest.approx(residual)
    for slope in torch.autograd.grad(loss, list(model.parameters())):
        assert float(slope.abs().max()) < 1e-10 * residual


def test_gradient_descent_on_pca_reaches_the_residual_of_the_svd(y: Tensor) -> None:
    torch.manual_seed(0)
    model = ReconstructionEnergy(nn.Linear(5, 2, bias=False), nn.Linear(2, 5, bias=False)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = PushDown()(model, y)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    singular = torch.linalg.svdvals(y)
    assert float(model(y).sum().detach()) == pytest.approx(float(singular[2:].square().sum()), rel=1e-6)


def energy(latent: Latent, encoder: nn.Module, refined: bool = False) -> LatentEnergy:
    decoder = matrix(
        torch.randn(5, latent.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    inference = AmortisedRefined(encoder, 5, 0.01) if refined else Amortised(encoder)
    return LatentEnergy(PredictiveEnergy(decoder, latent.double(), regularisation=0.3), inference)


def test_a_sparse_autoencoder_by_hand(y: Tensor) -> None:
    encoder = matrix(torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    model = energy(Sparse(8), encoder)
    loss = Amortisation()(model, y)
    code = y @ encoder.weight.T
    by_hand = (y - code @ model.model.decoder.weight.T).square().sum(1) + 0.3 * code.abs().sum(1)
    torch.testing.assert_close(loss, by_hand.mean())
    slopes = torch.autograd.grad(loss, [encoder.weight, model.model.decoder.weight])
    expected = torch.autograd.grad(by_hand.mean(), [encoder.weight, model.model.decoder.weight])
    for found, truth in zip(slopes, expected, strict=True):
        torch.testing.assert_close(found, truth)


def test_the_limits_of_a_latent_hold_while_its_encoder_learns(y: Tensor) -> None:
    eye = torch.eye(5, dtype=torch.float64)
    for latent, loss in (
        (Ball(5, 1.0), (y.norm(dim=1) - 1).clamp_min(0).square().mean()),
        (Gaussian(5, 0.0), None),
    ):
        model = LatentEnergy(PredictiveEnergy(matrix(eye), latent.double()), Amortised(matrix(eye)))
        found = Amortisation()(model, y)
        torch.testing.assert_close(found, 0.5 * y.square().sum(1).mean() if loss is None else loss)
    noisy = LatentEnergy(PredictiveEnergy(matrix(eye), Gaussian(5, 2.0).double()), Amortised(matrix(eye)))
    more = Amortisation()(noisy, y.repeat(200, 1), torch.Generator().manual_seed(0))
    # noise of variance 4 in 5 entries, seen by the decoder and by R
    assert float(more.detach()) == pytest.approx(float(0.5 * y.square().sum(1).mean()) + 1.5 * 20, rel=0.02)


def test_a_refined_code_teaches_the_encoder(y: Tensor) -> None:
    encoder = matrix(torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    model = energy(Gaussian(3, 0.0), encoder, refined=True)
    found = model.model.infer(model.inference, y, None)
    loss = Amortisation(weight=0.5)(model, y)
    gap = (y @ encoder.weight.T - found.z).square().sum(1)
    torch.testing.assert_close(loss, found.energy.mean() + 0.5 * gap.mean())
    (slope,) = torch.autograd.grad(loss, encoder.weight)
    torch.testing.assert_close(slope, torch.autograd.grad(0.5 * gap.mean(), encoder.weight)[0])


def test_noise_limits_what_a_refined_code_says(y: Tensor) -> None:
    """A linear decoder W: noise of variance v adds v |W|^2 to the misfit and D v / 2 to R, on average."""
    encoder = matrix(torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    clean, noisy = (energy(Gaussian(3, noise), encoder, refined=True) for noise in (0.0, 2.0))
    many = y.repeat(100, 1)
    losses = [Amortisation()(one, many, torch.Generator().manual_seed(0)) for one in (clean, noisy)]
    more = 4 * (float(clean.model.decoder.weight.detach().square().sum()) + 0.3 * 1.5)
    assert float((losses[1] - losses[0]).detach()) == pytest.approx(more, rel=0.02)
    for loss, one in zip(losses, (clean, noisy), strict=True):  # the noise does not teach the encoder
        (slope,) = torch.autograd.grad(loss, encoder.weight)
        gap = (encoder(many) - one.model.infer(one.inference, many, None).z).square().sum(1).mean()
        torch.testing.assert_close(slope, torch.autograd.grad(gap, encoder.weight)[0])


def test_vector_quantisation_by_hand(y: Tensor) -> None:
    torch.manual_seed(0)
    encoder = matrix(torch.randn(2, 5, dtype=torch.float64))
    latent = Quantised(6, 2)
    model = energy(latent, encoder)
    decoder = model.model.decoder.weight
    loss = VectorQuantisation(0.25)(model, y)
    code = y @ encoder.weight.T
    nearest = latent.codebook[torch.cdist(code, latent.codebook).argmin(1)]
    misfit = (y - nearest @ decoder.T).square().sum(1)
    torch.testing.assert_close(loss, (misfit + 1.25 * (code - nearest).square().sum(1)).mean())

    codes, weights = torch.autograd.grad(loss, [latent.codebook, encoder.weight])
    expected, _ = torch.autograd.grad(
        (code.detach() - nearest).square().sum(1).mean(), [latent.codebook, decoder], allow_unused=True
    )
    torch.testing.assert_close(codes, expected)
    # Straight-through: the misfit's gradient in the code is that in e.
    at = nearest.detach().requires_grad_()
    (through,) = torch.autograd.grad((y - at @ decoder.T).square().sum(1).mean(), at)
    commit = 0.25 * 2 * (code - nearest).detach() / len(y)
    torch.testing.assert_close(weights, (through + commit).T @ y)


class Fixed(nn.Module):
    """Returns the same code for every y."""

    def __init__(self, code: Tensor) -> None:
        super().__init__()
        self.code = nn.Parameter(code)

    def forward(self, y: Tensor) -> Tensor:
        return self.code.expand(len(y), -1)


def test_the_variational_bound_by_hand_and_above_the_negative_log_likelihood() -> None:
    """A linear decoder, the exact posterior: the bound is tight, log p(y) = log N(y; 0, WW' + I / 2 beta)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 1, dtype=torch.float64, generator=generator)
    beta = 2.0
    y = torch.randn(1, 3, dtype=torch.float64, generator=generator).repeat(200_000, 1)
    precision = 1 + 2 * beta * float(weight.square().sum())
    mean = 2 * beta * float((y[0] * weight[:, 0]).sum()) / precision
    code = torch.tensor([[mean, -0.5 * float(torch.tensor(precision).log())]], dtype=torch.float64)
    covariance = weight @ weight.T + torch.eye(3, dtype=torch.float64) / (2 * beta)
    truth = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance)
    constant = 1.5 * float(torch.log(torch.tensor(torch.pi / beta)))

    model = VariationalEnergy(Fixed(code), matrix(weight), beta)
    bound = Variational()(model, y, torch.Generator().manual_seed(1))
    assert float(bound.detach()) + constant == pytest.approx(-float(truth.log_prob(y[0])), abs=0.01)
    worse = VariationalEnergy(Fixed(code + 0.3), matrix(weight), beta)
    assert (
        float(Variational()(worse, y, torch.Generator().manual_seed(1)).detach())
        > float(bound.detach()) + 0.02
    )


def test_a_latent_bank_learns_each_latent_with_the_decoder(y: Tensor) -> None:
    torch.manual_seed(0)
    decoder = matrix(torch.randn(5, 2, dtype=torch.float64))
    model = LatentEnergy(PredictiveEnergy(decoder, Ball(2, 1.0).double()), Enumeration())
    bank = LatentBank(300, Ball(2, 1.0).double())
    index = torch.tensor([4, 17])
    with torch.no_grad():
        bank.bank[17] *= 30  # outside of the ball
    loss = bank(model, y[index], index=index)
    codes = torch.stack([bank.bank[4], bank.bank[17] / bank.bank[17].norm()])
    torch.testing.assert_close(loss, (y[index] - codes @ decoder.weight.T).square().sum(1).mean())
    (slope,) = torch.autograd.grad(loss, bank.bank)
    assert slope.abs().sum(1).nonzero().flatten().tolist() == [4, 17]


def test_latents_of_a_bank_begin_where_they_are_put(y: Tensor) -> None:
    bank = LatentBank(2, Ball(2, 1.0).double())
    bank.begin_at(torch.tensor([[0.3, -0.4], [3.0, 4.0]]))  # float32, the second outside of the ball
    expected = torch.tensor([[0.3, -0.4], [0.6, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(bank.codes(torch.arange(2)), expected, rtol=1e-6, atol=0)
    assert bank.bank.requires_grad
    with pytest.raises(UserError, match=r"\(3, 2\) cannot be its latents: give \(2, 2\)"):
        bank.begin_at(torch.zeros(3, 2))


NOISE = UniformNoise((5,), -9.0, 9.0).double()


@pytest.mark.parametrize(
    "objective",
    [
        PushDown(),
        ContrastiveDivergence(Descent(0.01), 1),
        PersistentContrastiveDivergence(Descent(0.01), 1, ReplayBuffer(300, NOISE)),
        SampledLikelihood(Descent(0.01), 1, NOISE),
        NoiseContrastive(NOISE).double(),
        Margin(0.1),
        MonteCarloLikelihood(NOISE, 300),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("refined", [False, True])
def test_an_encoder_that_would_never_learn_is_refused(objective: Any, refined: bool, y: Tensor) -> None:
    for latent, words in (
        (Gaussian(2, 0.0), "use Amortisation"),
        (Quantised(4, 2), "use VectorQuantisation, with Amortised inference"),
        (OneHot(2), "use Enumeration"),
    ):
        encoder = matrix(torch.ones(2, 5))
        model = energy(latent, encoder, refined)
        with pytest.raises(UserError, match=f"encoder of {type(model.inference).__name__}.*{words}"):
            objective(model, y)
        for part in (encoder, latent):  # they are not to learn
            part.requires_grad_(False)
        assert objective(model, y).requires_grad


def test_mistakes(y: Tensor) -> None:
    with pytest.raises(UserError, match="weight is -1"):
        Amortisation(-1)
    with pytest.raises(UserError, match="needs a LatentEnergy with Amortised"):
        Amortisation()(Fixed(torch.zeros(1, 1)), y)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="finite latent passes no gradient"):
        Amortisation()(energy(OneHot(3), nn.Linear(5, 3)), y)
    with pytest.raises(UserError, match="commitment is -1"):
        VectorQuantisation(-1)
    with pytest.raises(UserError, match="Quantised latent and Amortised"):
        VectorQuantisation()(energy(Sparse(3), nn.Linear(5, 3)), y)
    with pytest.raises(UserError, match="needs a VariationalEnergy, not Fixed"):
        Variational()(Fixed(torch.zeros(1, 1)), y)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="count is 0"):
        LatentBank(0, Ball(2, 1.0))
    for finite in (OneHot(3), Quantised(4, 2)):
        with pytest.raises(UserError, match="so it would never learn: use Enumeration with PushDown"):
            LatentBank(3, finite)
    with pytest.raises(UserError, match="index of every y"):
        LatentBank(3, Ball(2, 1.0))(energy(Sparse(3), nn.Linear(5, 3)), y)
    with pytest.raises(UserError, match="no latent 5: count is 3"):
        LatentBank(3, Ball(2, 1.0)).codes(torch.tensor([1, 5]))
