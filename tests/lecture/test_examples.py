"""The parts of the examples against independent truths; the examples themselves run in test_gallery."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from ssl_ebm.data.planar import Curve, plane
from ssl_ebm.lecture import blur, dae, free_energy, glo, kmeans_spiral, queries
from ssl_ebm.lecture.claims import Setting
from ssl_ebm.lecture.images import grey_images, patches


def test_coordinate_descent_is_lloyds_algorithm() -> None:
    y = plane("spiral").sample(500, 0)
    start = y[:20]
    ours = kmeans_spiral.coordinate_descent(y, start.T.contiguous(), 300)
    theirs = KMeans(20, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(y.numpy())
    assert ours.energy[-1] * len(y) == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_allclose(ours.prototypes.T.numpy(), theirs.cluster_centers_, atol=1e-3)


def test_gradient_descent_moves_a_lone_cluster_as_lloyd_does() -> None:
    """One prototype: 1/L = 1/2, and one step leads to the mean."""
    y = plane("rings").sample(200, 0)
    start = y[:1].T.contiguous()
    assert kmeans_spiral.safe_step(y, start) == pytest.approx(0.5)
    found = kmeans_spiral.gradient_descent(y, start, 1, 0.5).prototypes
    torch.testing.assert_close(found[:, 0], y.mean(0), rtol=1e-4, atol=1e-5)


def test_zero_energy_points_are_counted() -> None:
    prototypes = torch.tensor([[0.0, 2.0, -2.0], [0.0, 1.0, 1.0]])
    assert kmeans_spiral.zero_energy_points(kmeans_spiral.k_means(prototypes)) == 3


def test_the_estimate_by_importance_sampling_nears_the_exact_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors fall about as 1 / sqrt(samples)."""
    few = [free_energy.by_importance(seed)[0] for seed in range(4)]
    monkeypatch.setattr(free_energy, "SAMPLES", 25 * free_energy.SAMPLES)
    many = free_energy.by_importance(0)[0]
    assert many < 0.4 * min(few)


def test_laws_of_the_free_energy_can_be_broken() -> None:
    energies = torch.rand(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rise, hot, cold = free_energy.laws(energies)
    assert rise <= 1e-12
    assert max(hot, cold) < 1e-4
    wrong = torch.full((10, 5), math.log(0.5 / 5), dtype=torch.float64)  # weights that sum to a half
    assert free_energy.laws(energies, wrong)[1] > 1


def test_true_answers_of_the_spiral() -> None:
    source = plane("spiral")
    assert isinstance(source, Curve)
    found = queries.true_answers(source, 0.5)
    on_it = torch.stack([torch.full_like(found, 0.5), found], 1)
    angle = np.linspace(0, 4 * math.pi, 100_001)
    y1 = (0.3 + 2.7 * angle / (4 * math.pi)) * np.cos(angle)
    assert len(found) == int((np.diff(np.sign(y1 - 0.5)) != 0).sum())
    assert float(source.distance(on_it).max()) < 0.012


def test_answers_of_a_known_energy() -> None:
    """F = (y2^2 - y1^2)^2 has the answers -y1 and y1."""

    def energy(y: torch.Tensor) -> torch.Tensor:
        return (y[:, 1].square() - y[:, 0].square()).square()

    assert sorted(queries.answers(energy, 1.5, 2).tolist()) == pytest.approx([-1.5, 1.5], abs=0.01)
    assert len(queries.answers(energy, 1.5, 1)) == 1


def test_points_beside_the_spiral_are_as_far_as_they_say() -> None:
    source = plane("spiral")
    assert isinstance(source, Curve)
    y, distance = dae.beside(source, 500, 0)
    torch.testing.assert_close(source.distance(y), distance)
    assert float(distance.min()) > dae.NEAR - 0.02
    assert float(distance.max()) < dae.FAR + 0.01


def test_blur_worlds_have_two_futures_each() -> None:
    for world in blur.WORLDS:
        x, y = world.draw(2000, torch.Generator().manual_seed(0))
        gaps = (world.futures(x) - y[:, None]).norm(dim=2)
        assert float(gaps.amin(1).max()) < 6 * blur.NOISE
        far = x.norm(dim=1) > 0.8 if world.inputs == 2 else x[:, 0] > 0.8
        shares = (gaps[far].argmin(1) == 0).float().mean()
        assert float(shares) == pytest.approx(0.5, abs=0.05)


def test_images_of_the_two_splits_differ_and_patches_are_normed() -> None:
    setting = Setting([0])
    seen, new = (grey_images(setting, 50, 0, split) for split in ("train", "test"))
    assert seen.shape == (50, 1, 28, 28)
    assert float((seen[:, None] - new[None]).abs().flatten(2).amax(2).min()) > 0.1
    cut = patches(seen, 8, 300, 0)
    assert cut.shape == (300, 64)
    torch.testing.assert_close(cut.norm(dim=1), torch.ones(300))
    torch.testing.assert_close(cut.mean(1), torch.zeros(300), rtol=0, atol=1e-6)


def test_pca_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    data = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    new = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    theirs = PCA(glo.DIM, svd_solver="full").fit(data.flatten(1).numpy())
    flat = new.flatten(1).numpy()
    back = theirs.inverse_transform(theirs.transform(flat))
    made = glo.pca(data, new).flatten(1).numpy()
    np.testing.assert_allclose(((flat - made) ** 2).sum(1), ((flat - back) ** 2).sum(1), rtol=1e-4)
    np.testing.assert_allclose(made, back, atol=1e-4)


def test_the_way_along_the_sphere_turns_evenly() -> None:
    """From (1, 0) to (0, 2); between latents that are the same, and opposite."""
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for share in (0.0, 0.25, 0.5, 1.0):
        angle, length = share * math.pi / 2, 1 + share
        expected = torch.tensor([[length * math.cos(angle), length * math.sin(angle)]])
        torch.testing.assert_close(glo.along_sphere(a, b, share), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(glo.along_sphere(a, a, 0.3), a)
    assert glo.along_sphere(a, -a, 0.5).isfinite().all()


def test_a_crossfade_is_the_mean_of_both_images() -> None:
    """Also where both are bright: what is compared with it would seem sharper than it is."""
    a, b = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.6
    torch.testing.assert_close(glo.crossfade(a, b), (a + b) / 2)
