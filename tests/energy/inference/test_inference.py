import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy import (
    Amortised,
    AmortisedRefined,
    Ball,
    Enumeration,
    Gaussian,
    GradientDescent,
    OneHot,
    PredictiveEnergy,
    Quantised,
)
from ssl_ebm.energy.draws import ItemGenerator
from ssl_ebm.energy.inference import Inference, Inferred, Lbfgs, OptimizerName, PosteriorSampling
from ssl_ebm.energy.sampling import Langevin
from ssl_ebm.errors import UserError

from ..linear_gaussian import LinearGaussian, example, weight


def linear_encoder(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer


@pytest.fixture
def y(generator: torch.Generator) -> Tensor:
    return torch.randn(6, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def coded(seed: int) -> PredictiveEnergy:
    """A non-linear decoder with 9 codes; float64, so that gradients can be compared closely."""
    decoder = nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    return PredictiveEnergy(decoder, OneHot(9).double())


# Enumeration


@pytest.mark.parametrize(
    "inference", [Enumeration(chunk=4), Enumeration("minimum"), Enumeration("minimum", 2)]
)
def test_enumeration_in_chunks_or_twice_equals_enumeration_at_once(
    inference: Enumeration, coded: PredictiveEnergy, y: Tensor
) -> None:
    plain = coded.infer(Enumeration(), y, None)
    found = coded.infer(inference, y, None)
    torch.testing.assert_close(found.energies, plain.energies)
    assert torch.equal(found.index, plain.index)
    parameters = list(coded.decoder.parameters())
    expected = torch.autograd.grad(plain.energy.sum(), parameters)
    for one, other in zip(torch.autograd.grad(found.energy.sum(), parameters), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_enumeration_finds_what_a_loop_finds(coded: PredictiveEnergy, y: Tensor) -> None:
    found = coded.infer(Enumeration(), y, None)
    for i in range(len(y)):
        energies = [
            float((coded.decoder(code) - y[i]).square().sum().detach()) for code in torch.eye(9).double()
        ]
        assert int(found.index[i]) == energies.index(min(energies))
        assert math.isclose(float(found.energy[i].detach()), min(energies), rel_tol=1e-12)
    assert not found.z.requires_grad
    assert torch.equal(found.z, torch.eye(9).double()[found.index])


def test_enumeration_shows_a_nan_and_does_not_step_around_it(y: Tensor) -> None:
    def energy_of_z(z: Tensor) -> Tensor:
        return torch.where(z[..., 2] == 1, math.nan, z[..., 0])

    found = Enumeration()(energy_of_z, OneHot(4), y)
    assert found.energy.isnan().all()
    assert (found.index == 2).all()


# Gradient steps


@pytest.mark.parametrize(("optimizer", "lr", "steps"), [("sgd", 0.03, 2000), ("adam", 0.1, 2000)])
def test_descent_converges_to_ridge_regression(
    optimizer: OptimizerName, lr: float, steps: int, y: Tensor, generator: torch.Generator
) -> None:
    truth = example(3)
    found = truth.model().infer(GradientDescent(steps, lr, optimizer), y, None, generator)
    z, energy = truth.ridge(y)
    torch.testing.assert_close(found.z, z, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.energy, energy, rtol=1e-8, atol=1e-8)


def test_envelope_theorem(y: Tensor, generator: torch.Generator) -> None:
    """dF/dA at the found z equals autograd through the closed-form minimum, and its finite differences."""
    truth = example(3)
    model = truth.model()
    found = model.infer(GradientDescent(2000, 0.03), y, None, generator)
    assert not found.z.requires_grad
    (gradient,) = torch.autograd.grad(found.energy.sum(), weight(model))

    A = truth.A.clone().requires_grad_()
    (through_argmin,) = torch.autograd.grad(LinearGaussian(A, truth.lam).ridge(y)[1].sum(), A)
    torch.testing.assert_close(gradient, through_argmin, rtol=1e-5, atol=1e-6)

    step = 1e-5
    for row in range(4):
        for column in range(3):
            bump = torch.zeros_like(truth.A)
            bump[row, column] = step
            above = LinearGaussian(truth.A + bump, truth.lam).ridge(y)[1].sum()
            below = LinearGaussian(truth.A - bump, truth.lam).ridge(y)[1].sum()
            slope = float((above - below) / (2 * step))
            assert math.isclose(float(gradient[row, column]), slope, rel_tol=1e-5, abs_tol=1e-5)


def test_envelope_theorem_for_codes_by_finite_differences(coded: PredictiveEnergy, y: Tensor) -> None:
    last = list(coded.decoder.parameters())[2]
    (gradient,) = torch.autograd.grad(coded.infer(Enumeration(), y, None).energy.sum(), last)
    step = 1e-6
    for place in [(0, 0), (1, 7), (3, 15)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                last[place] += sign * step
                values.append(float(coded.infer(Enumeration(), y, None).energy.sum()))
                last[place] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert math.isclose(float(gradient[place]), slope, rel_tol=1e-5, abs_tol=1e-7)


def test_descent_stays_in_the_ball_and_ends_at_the_nearest_point(generator: torch.Generator) -> None:
    # min |z - c|^2 with |z| <= 1: c scaled to the surface where it is outside.
    c = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    found = GradientDescent(200, 0.1)(
        lambda z: (z - c[:, None]).square().sum(-1), Ball(2, 1.0).double(), c, generator=generator
    )
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(found.z, expected, rtol=1e-8, atol=1e-8)


def test_restarts_find_the_deeper_of_two_wells(generator: torch.Generator) -> None:
    # (z^2 - 1)^2 + 0.3 z has a shallow well near +1 and its minimum near -1.
    def energy_of_z(z: Tensor) -> Tensor:
        return (z.square() - 1).square().sum(-1) + 0.3 * z.sum(-1)

    y, latent = torch.zeros(200, 1, dtype=torch.float64), Gaussian(1, 0.0).double()
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    minimum = energy_of_z(grid[:, None]).min()
    one = GradientDescent(300, 0.05)(energy_of_z, latent, y, generator=generator)
    many = GradientDescent(300, 0.05, restarts=16)(energy_of_z, latent, y, generator=generator)
    assert 0.2 < float((one.energy > minimum + 0.1).double().mean()) < 0.8
    torch.testing.assert_close(many.energy, minimum.expand(200), rtol=0, atol=1e-6)
    assert many.energies.shape == (200, 16)
    torch.testing.assert_close(many.energies.amin(1), many.energy)


@pytest.mark.parametrize("lr", [0.01, 10.0])
def test_descent_is_never_worse_than_its_start_even_when_it_diverges(lr: float, y: Tensor) -> None:
    truth = example(3)
    model = truth.model()
    start = model.latent.sample(len(y), torch.Generator().manual_seed(5))
    before = model.energy(y, None, start[:, None])[:, 0]
    found = model.infer(GradientDescent(100, lr), y, None, torch.Generator().manual_seed(5))
    assert (found.energy <= before).all()
    torch.testing.assert_close(model.energy(y, None, found.z[:, None])[:, 0], found.energy)


def test_a_nan_at_the_start_reaches_the_energy(y: Tensor) -> None:
    found = GradientDescent(3, 0.1)(lambda z: z.sum(-1) * math.nan, Gaussian(2, 0.0), y)
    assert found.energy.isnan().all()


def test_descent_leaves_parameters_alone_and_works_without_gradients(
    y: Tensor, generator: torch.Generator
) -> None:
    truth = example(2)
    model = truth.model()
    with torch.no_grad():
        found = model.infer(GradientDescent(1500, 0.03), y, None, generator)
    assert not found.energy.requires_grad
    assert weight(model).grad is None
    torch.testing.assert_close(found.energy, truth.ridge(y)[1])


def test_descent_says_what_to_do_under_inference_mode(y: Tensor) -> None:
    with torch.inference_mode(), pytest.raises(UserError, match=r"no_grad.*inference_mode=False"):
        example(2).model().infer(GradientDescent(3, 0.1), y, None)


def test_descent_takes_an_energy_that_ignores_z(y: Tensor, generator: torch.Generator) -> None:
    parameter = nn.Parameter(torch.ones(()))
    latent = Gaussian(2, 0.0)
    found = GradientDescent(3, 0.1)(lambda z: parameter.expand(z.shape[:2]), latent, y, generator=generator)
    torch.testing.assert_close(found.energy, torch.ones(6))


# Encoders


def test_the_ridge_matrix_is_the_perfect_encoder(y: Tensor) -> None:
    truth = example(3)
    gram = truth.A.T @ truth.A + 0.5 * truth.lam * torch.eye(3).double()
    encoder = linear_encoder(torch.linalg.solve(gram, truth.A.T))
    found = truth.model().infer(Amortised(encoder), y, None)
    torch.testing.assert_close(found.energy, truth.ridge(y)[1])
    assert torch.equal(found.z, found.proposal.detach())


def test_refinement_lies_between_the_guess_and_the_minimum(y: Tensor) -> None:
    truth = example(3)
    model, encoder = truth.model(), linear_encoder(0.3 * truth.A.T)
    guess = model.infer(Amortised(encoder), y, None).energy
    few = model.infer(AmortisedRefined(encoder, 3, 0.02), y, None).energy
    many = model.infer(AmortisedRefined(encoder, 2000, 0.03), y, None).energy
    minimum = truth.ridge(y)[1]
    assert (guess > few).all()
    assert (few > minimum).all()
    torch.testing.assert_close(many, minimum)


@pytest.mark.parametrize("refine", [False, True])
def test_the_energy_trains_the_decoder_and_the_proposal_trains_the_encoder(refine: bool, y: Tensor) -> None:
    truth = example(3)
    model, encoder = truth.model(), linear_encoder(0.3 * truth.A.T)
    found = model.infer(AmortisedRefined(encoder, 5, 0.02) if refine else Amortised(encoder), y, None)
    found.energy.sum().backward()
    assert encoder.weight.grad is None
    # dE/dA at fixed z: -2 sum_i (y_i - A z_i) z_i'
    expected = -2 * (y - found.z @ truth.A.T).T @ found.z
    torch.testing.assert_close(weight(model).grad, expected)
    # d/dEnc of |Enc y - z|^2 = 2 (Enc y - z) y'; zero where z is the proposal itself.
    (found.proposal - found.z).square().sum().backward()
    torch.testing.assert_close(encoder.weight.grad, 2 * (0.3 * y @ truth.A - found.z).T @ y)
    moved = (found.proposal - found.z).abs().amax() > 0
    assert bool(moved) == refine


def test_an_encoder_sees_the_context_and_its_guess_is_projected(y: Tensor) -> None:
    class Difference(nn.Module):
        def forward(self, y: Tensor, context: Tensor) -> Tensor:
            return 100 * (y - context)

    latent = Ball(4, 1.0).double()
    context = torch.zeros_like(y)
    found = Amortised(Difference())(lambda z: z.square().sum(-1), latent, y, context)
    torch.testing.assert_close(found.z, y / y.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(found.proposal, 100 * y)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.01), ("adam", 0.003)])
def test_refinement_under_autocast_goes_where_it_goes_in_float32(optimizer: OptimizerName, lr: float) -> None:
    encoder = nn.Linear(1, 1)
    nn.init.zeros_(encoder.weight)
    nn.init.constant_(encoder.bias, 2.5)  # a number in bfloat16, whose steps are of 1/64 there
    model = PredictiveEnergy(nn.Identity(), Gaussian(1, 0.0), regularisation=0.0)
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found.append(
                model.infer(AmortisedRefined(encoder, 300, lr, optimizer), torch.full((1, 1), 3.0), None)
            )
    assert found[1].proposal is not None
    assert torch.equal(found[0].z, found[1].z)
    assert torch.equal(found[0].energy, found[1].energy)
    assert float(found[1].z) == pytest.approx(3.0, abs=0.05)


# Mistakes


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: Enumeration(chunk=0), "chunk"),
        (lambda: Enumeration("some"), "gradient"),  # type: ignore[arg-type]
        (lambda: GradientDescent(0, 0.1), "steps"),
        (lambda: GradientDescent(1, 0.0), "lr"),
        (lambda: GradientDescent(1, math.nan), "lr"),
        (lambda: GradientDescent(1, 0.1, "lbfgs"), "optimizer"),  # type: ignore[arg-type]
        (lambda: GradientDescent(1, 0.1, restarts=0), "restarts"),
        (lambda: AmortisedRefined(nn.Identity(), 0, 0.1), "steps"),
    ],
)
def test_wrong_settings_are_named(build: Callable[[], object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        build()


def test_enumeration_of_a_continuous_latent_is_refused(y: Tensor) -> None:
    with pytest.raises(UserError, match=r"finitely many.*Gaussian"):
        example(2).model().infer(Enumeration(), y, None)


def test_codes_that_descent_would_not_train_are_refused(y: Tensor) -> None:
    inference = GradientDescent(2, 0.1)
    model = PredictiveEnergy(nn.Linear(3, 4).double(), Quantised(5, 3).double())
    with pytest.raises(UserError, match="Quantised would get no gradient and never learn: use Enumeration"):
        model.infer(inference, y, None)
    with torch.no_grad():  # asked, not trained: one of the codes
        found = model.infer(inference, y, None)
    distance = torch.cdist(found.z, model.latent.enumerate()).amin(1).detach()
    assert float(distance.max()) < 1e-9
    model.latent.requires_grad_(False)  # another training made them
    assert model.infer(inference, y, None).energy.requires_grad


def test_an_encoder_of_the_wrong_size_is_refused(y: Tensor) -> None:
    with pytest.raises(UserError, match=r"\(6, 2\), got \(6, 4\)"):
        example(2).model().infer(Amortised(nn.Identity()), y, None)


@pytest.mark.parametrize(
    "inference",
    [
        GradientDescent(3, 0.1, restarts=3),
        Lbfgs(2, restarts=3),
        PosteriorSampling(Langevin(0.05), steps=3, chains=2),
    ],
    ids=["descent", "lbfgs", "sampling"],
)
def test_what_is_drawn_for_an_item_does_not_depend_on_the_processes(inference: Inference) -> None:
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    model = PredictiveEnergy(decoder, Gaussian(2, noise=0.0))
    y = torch.randn(6, 3)

    def found(rank: int, processes: int) -> Inferred:
        generator = ItemGenerator("cpu", processes, rank).manual_seed(4)
        return model.infer(inference, y[rank::processes], None, generator)

    whole = found(0, 1)
    assert len({tuple(z) for z in whole.z.tolist()}) == 6
    for rank in (0, 1):
        part = found(rank, 2)
        torch.testing.assert_close(part.z, whole.z[rank::2])
        torch.testing.assert_close(part.energies, whole.energies[rank::2])


def test_codes_drawn_for_an_item_do_not_depend_on_the_processes() -> None:
    def drawn(rank: int, processes: int) -> Tensor:
        generator = ItemGenerator("cpu", processes, rank).manual_seed(4)
        return OneHot(7).sample(12 // processes, generator)

    for rank in (0, 1):
        assert torch.equal(drawn(rank, 2), drawn(0, 1)[rank::2])
