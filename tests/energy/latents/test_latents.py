import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_ebm.energy import Ball, FiniteLatent, Gaussian, Latent, OneHot, Quantised, Sparse, Sphere
from ssl_ebm.energy.latents import continuous
from ssl_ebm.errors import UserError


def nearest_by_loops(z: np.ndarray, codes: np.ndarray) -> list[int]:
    """In float64, one pair at a time; ties go to the lowest index."""
    out = []
    for row in z.astype(np.float64):
        distances = [float(((row - code) ** 2).sum()) for code in codes.astype(np.float64)]
        out.append(min(range(len(codes)), key=distances.__getitem__))
    return out


def spaces(dim: int) -> list[Latent]:
    finite = [OneHot(dim), Quantised(7, dim)]
    return [*finite, Gaussian(dim, noise=0.1), Ball(dim, radius=0.8), Sphere(dim, radius=0.8), Sparse(dim)]


@settings(max_examples=50, deadline=None)
@given(dim=st.integers(1, 6), scale=st.floats(0.01, 100), seed=st.integers(0, 10_000))
def test_projection_is_idempotent_and_nearest_among_points_of_the_space(
    dim: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    for latent in spaces(dim):
        z = scale * torch.randn(5, dim)
        projected = latent.project(z)
        torch.testing.assert_close(latent.project(projected), projected, rtol=1e-6, atol=1e-7)
        assert torch.isfinite(latent.log_density(projected)).all()
        if not isinstance(latent, Gaussian | Sparse):  # all of R^D: nothing is nearer than z itself
            others = latent.sample(200)
            distance = (z - projected).norm(dim=-1)
            to_others = (z[:, None] - others).norm(dim=-1)
            assert (distance[:, None] <= to_others * (1 + 1e-5) + 1e-6).all()


def test_nearest_codebook_entry_equals_brute_force(seed: int) -> None:
    latent = Quantised(32, 5)
    z = torch.randn(3, 40, 5)
    expected = nearest_by_loops(z.reshape(-1, 5).numpy(), latent.codebook.detach().numpy())
    assert latent.nearest(z).flatten().tolist() == expected
    assert torch.equal(latent.project(z).reshape(-1, 5), latent.codebook[expected])


def test_nearest_codebook_entry_survives_codes_far_from_the_origin(seed: int) -> None:
    # |z|^2 + |e|^2 - 2 z.e loses all digits here: the codes are 0.1 apart, 1000 from the origin.
    latent = Quantised(16, 3)
    with torch.no_grad():
        latent.codebook.copy_(1000 + 0.1 * torch.randn(16, 3))
    z = 1000 + 0.1 * torch.randn(200, 3)
    expected = nearest_by_loops(z.numpy(), latent.codebook.detach().numpy())
    assert latent.nearest(z).tolist() == expected


def test_one_hot_nearest_equals_brute_force_over_the_corners(seed: int) -> None:
    latent = OneHot(6)
    z = torch.randn(50, 6)
    assert latent.nearest(z).tolist() == nearest_by_loops(z.numpy(), np.eye(6))
    assert torch.equal(latent.project(latent.enumerate()), latent.enumerate())


def test_quantise_is_straight_through(seed: int) -> None:
    latent = Quantised(8, 3)
    z = torch.randn(4, 3, requires_grad=True)
    slope = torch.randn(4, 3)
    out = latent.quantise(z)
    torch.testing.assert_close(out, latent.codebook[latent.nearest(z)])
    gradients = torch.autograd.grad((slope * out).sum(), [z, latent.codebook], allow_unused=True)
    assert torch.equal(gradients[0], slope)
    assert gradients[1] is None


@pytest.mark.parametrize(
    ("dim", "volume"), [(1, 2.0), (2, math.pi), (3, 4 / 3 * math.pi), (4, math.pi**2 / 2)]
)
def test_ball_density_is_one_over_its_volume(dim: int, volume: float) -> None:
    latent = Ball(dim, radius=1.5)
    z = torch.zeros(2, dim)
    z[1, 0] = 1.6
    expected = torch.tensor([-math.log(volume * 1.5**dim), -math.inf])
    torch.testing.assert_close(latent.log_density(z), expected)


def test_ball_samples_are_uniform(generator: torch.Generator) -> None:
    count, dim = 20_000, 3
    z = Ball(dim, radius=2.0).sample(count, generator)
    share = (z.norm(dim=-1) / 2.0).pow(dim).sort().values  # uniform on [0, 1] for a uniform ball
    steps = torch.arange(1, count + 1) / count
    assert (share - steps).abs().max() < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov at the 1 % level
    assert z.mean(0).abs().max() < 0.03


def test_a_draw_without_a_direction_takes_the_first_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A normal number is exactly 0 about five times in 10^8: in one dimension that is no direction."""
    draw = continuous.normal

    def some_zeros(shape: tuple[int, ...], *others: Any) -> torch.Tensor:
        made = draw(shape, *others)
        made[::2] = 0
        return made

    def drawn() -> torch.Tensor:
        return Ball(3, 2.0).sample(8, torch.Generator().manual_seed(0))

    before = drawn()
    monkeypatch.setattr(continuous, "normal", some_zeros)
    found = drawn()
    assert torch.equal(found[1::2], before[1::2])
    torch.testing.assert_close(found[::2, 0], before[::2].norm(dim=1))
    assert bool((found[::2, 1:] == 0).all())


def test_ball_projection_has_a_finite_gradient_at_zero_and_is_identity_inside() -> None:
    latent = Ball(3, radius=1.0)
    z = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]], requires_grad=True)
    out = latent.project(z)
    assert torch.equal(out, z)
    (gradient,) = torch.autograd.grad(out.sum(), z)
    assert torch.equal(gradient, torch.ones(2, 3))


@pytest.mark.parametrize(("dim", "area"), [(1, 2.0), (2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)])
def test_sphere_density_is_one_over_its_area(dim: int, area: float) -> None:
    latent = Sphere(dim, radius=1.5)
    z = torch.zeros(3, dim)
    z[0, -1], z[1, 0] = 1.5, 1.4
    expected = torch.tensor([-math.log(area * 1.5 ** (dim - 1)), -math.inf, -math.inf])
    torch.testing.assert_close(latent.log_density(z), expected)
    torch.testing.assert_close(latent.project(z).norm(dim=-1), torch.full((3,), 1.5))


def test_sphere_samples_are_uniform(generator: torch.Generator) -> None:
    """Archimedes: on a sphere in three dimensions each coordinate is uniform on [-radius, radius]."""
    count = 20_000
    z = Sphere(3, radius=2.0).sample(count, generator)
    torch.testing.assert_close(z.norm(dim=-1), torch.full((count,), 2.0))
    steps = torch.arange(1, count + 1)[:, None] / count
    assert ((z.sort(0).values + 2) / 4 - steps).abs().max() < 1.63 / math.sqrt(count)


def test_sparse_density_and_draws_match_torch_distributions(generator: torch.Generator) -> None:
    latent = Sparse(2).double()
    truth = torch.distributions.Laplace(torch.zeros(2, dtype=torch.float64), 1.0)
    z = latent.sample(20_000, generator)
    torch.testing.assert_close(latent.log_density(z), truth.log_prob(z).sum(-1))
    steps = torch.arange(1, 20_001)[:, None] / 20_000
    assert (truth.cdf(z).sort(0).values - steps).abs().max() < 1.63 / math.sqrt(20_000)


def test_proximal_step_of_sparse_minimises_its_definition() -> None:
    z = torch.tensor([[3.0, 0.4, -0.6, -2.0, 0.0]], dtype=torch.float64)
    found = Sparse(5).proximal(z, 0.5)
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    for value, best in zip(z[0].tolist(), found[0].tolist(), strict=True):
        objective = 0.5 * (grid - value).square() + 0.5 * grid.abs()
        assert best == pytest.approx(float(grid[objective.argmin()]), abs=2e-4)
    assert found[0, 1] == 0


def test_gaussian_density_and_regulariser_match_torch_distributions(seed: int) -> None:
    z = torch.randn(6, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    latent = Gaussian(3, noise=0.0)
    torch.testing.assert_close(latent.log_density(z), normal.log_prob(z).sum(-1))
    # exp(-R) is the density up to its normaliser.
    gap = latent.log_density(z) + latent.regulariser(z)
    torch.testing.assert_close(gap, torch.full_like(gap, -1.5 * math.log(2 * math.pi)))


def test_gaussian_noise_has_the_stated_size_follows_the_generator_and_a_schedule() -> None:
    latent = Gaussian(2, noise=0.3)
    z = torch.full((50_000, 2), 5.0)
    first = latent.perturb(z, torch.Generator().manual_seed(1))
    again = latent.perturb(z, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert abs(float((first - z).std()) - 0.3) < 0.005
    assert abs(float((first - z).mean())) < 0.005
    latent.noise = 0.0
    assert latent.perturb(z) is z


@pytest.mark.parametrize("latent", [OneHot(4), Quantised(4, 2)])
def test_finite_samples_are_uniform_over_the_codes(latent: FiniteLatent, generator: torch.Generator) -> None:
    z = latent.sample(40_000, generator)
    index = latent.nearest(z)
    assert torch.equal(latent.enumerate()[index], z)
    share = index.bincount(minlength=4) / 40_000
    assert (share - 0.25).abs().max() < 0.01
    torch.testing.assert_close(latent.log_density(z).exp(), torch.full((40_000,), 0.25))


def test_samples_follow_the_generator_and_the_module_dtype() -> None:
    for latent in spaces(3):
        latent = latent.double()
        first = latent.sample(5, torch.Generator().manual_seed(3))
        assert torch.equal(first, latent.sample(5, torch.Generator().manual_seed(3)))
        assert not torch.equal(first, latent.sample(5, torch.Generator().manual_seed(4)))
        assert first.dtype == torch.float64
        # Nothing but learnt values goes into a checkpoint.
        assert set(latent.state_dict()) <= {"codebook"}


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: OneHot(0), "codes"),
        (lambda: Quantised(0, 2), "codes"),
        (lambda: Quantised(3, 0), "dim"),
        (lambda: Gaussian(0, 0.1), "dim"),
        (lambda: Gaussian(2, -0.1), "noise"),
        (lambda: Gaussian(2, math.nan), "noise"),
        (lambda: Ball(2, 0.0), "radius"),
        (lambda: Ball(2, math.inf), "radius"),
        (lambda: Sphere(2, -1.0), "radius"),
        (lambda: Sparse(0), "dim"),
    ],
)
def test_wrong_settings_are_named(build: Callable[[], object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        build()


@pytest.mark.parametrize("latent", spaces(3), ids=lambda latent: type(latent).__name__)
def test_a_z_of_another_size_is_refused(latent: Latent) -> None:
    wrong = torch.zeros(2, 4)
    for method in (latent.regulariser, latent.project, latent.log_density):
        with pytest.raises(UserError, match=r"dim 3.*dimension is 4"):
            method(wrong)
