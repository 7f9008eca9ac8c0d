"""Plane sets: draws follow the stated density, densities integrate to 1, distances are those to the curve."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_ebm.data import PlanePoints
from ssl_ebm.data.planar import Curve, PlaneName, plane
from ssl_ebm.errors import UserError

NAMES: list[PlaneName] = ["spiral", "two_moons", "eight_gaussians", "rings", "checkerboard"]


def grid(points: int = 200, reach: float = 4.0) -> torch.Tensor:
    axis = -reach + 2 * reach * (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name: PlaneName) -> None:
    cell = (8.0 / 200) ** 2
    assert float(plane(name).log_density(grid()).exp().sum()) * cell == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_density(name: PlaneName) -> None:
    """Shares of 20,000 draws in squares of side 1 against the density's mass there."""
    source = plane(name)
    draws = source.sample(20_000, seed=0).double()
    mass = source.log_density(grid()).exp().reshape(8, 25, 8, 25).sum((1, 3)) * (8.0 / 200) ** 2
    place = ((draws + 4).floor().long()).clamp(0, 7)
    shares = torch.zeros(8, 8, dtype=torch.float64)
    shares.index_put_(
        (place[:, 0], place[:, 1]), torch.full((20_000,), 1 / 20_000, dtype=torch.float64), True
    )
    error = (mass * (1 - mass) / 20_000).sqrt()
    assert bool(((shares - mass).abs() < 4.5 * error + 1e-3).all())


def test_distances_to_circles_and_points() -> None:
    y = torch.tensor([[0.0, 0.0], [0.0, 2.4], [2.0, 2.0], [10.0, 0.0]])
    radius = y.norm(dim=1)
    rings = (radius[:, None] - torch.tensor([1.0, 2.0, 3.0])).abs().amin(1)
    torch.testing.assert_close(plane("rings").distance(y), rings, rtol=0, atol=2e-3)
    angles = torch.arange(8) / 8 * 2 * math.pi
    centres = 2.4 * torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(plane("eight_gaussians").distance(y), torch.cdist(y, centres).amin(1))


def test_spiral_by_its_formula() -> None:
    """Along the angle a, radius = 0.3 + 2.7 a / (4 pi)."""
    angle = torch.linspace(0.1, 4 * math.pi - 0.1, 50, dtype=torch.float64)
    radius = 0.3 + 2.7 * angle / (4 * math.pi)
    on_it = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    assert float(plane("spiral").distance(on_it).max()) < 0.012
    assert float(plane("spiral").distance(on_it * (1 + 0.2 / radius[:, None])).min()) > 0.15


def test_nodes_are_evenly_spread_along_the_spiral() -> None:
    source = plane("spiral")
    assert isinstance(source, Curve)
    gaps = source.nodes.diff(dim=0).norm(dim=1)
    assert float(gaps.max() / gaps.min()) < 1.01
    assert float(gaps.max()) < 0.5 * source.noise  # so the sum over nodes is the integral


def test_checkerboard_distance_by_hand() -> None:
    y = torch.tensor([[-2.9, -2.9], [-1.4, -2.9], [-0.75, -2.25], [4.0, 3.0], [4.0, 4.0]])
    expected = torch.tensor([0.0, 0.1, 0.75, 1.0, 2**0.5])
    torch.testing.assert_close(plane("checkerboard").distance(y), expected, rtol=1e-5, atol=1e-6)


def test_moons_are_those_of_scikit_learn_up_to_scale() -> None:
    from sklearn.datasets import make_moons

    theirs, _ = make_moons(500, noise=None)
    scaled = torch.from_numpy(1.8 * (theirs - [0.5, 0.25]))
    assert float(plane("two_moons").distance(scaled).max()) < 0.012


def test_the_same_points_again_carry_their_index() -> None:
    data = PlanePoints("rings", train_points=64, batch_size=16, fresh=False, seed=3)
    loader = data.train_dataloader()
    first, second = (
        {int(i): point for batch in loader for i, point in zip(batch["index"], batch["point"], strict=True)}
        for _ in range(2)
    )
    assert sorted(first) == list(range(64))
    assert all(torch.equal(first[i], second[i]) for i in range(64))


def test_fresh_points_never_come_again_and_have_no_index() -> None:
    data = PlanePoints("rings", train_points=64, batch_size=16, seed=3)
    loader = data.train_dataloader()
    batches = [batch for _ in range(2) for batch in loader]
    assert all(set(batch) == {"point"} for batch in batches)
    val = next(iter(data.val_dataloader()))["point"]
    points = torch.cat([*(batch["point"] for batch in batches), val])
    assert len(points.unique(dim=0)) == len(points)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="use one of spiral, two_moons"):
        plane("sprial")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rings: noise is 0: use at least"):
        plane("rings", 0)
    with pytest.raises(UserError, match="it has no noise"):
        plane("checkerboard", 0.1)
    with pytest.raises(UserError, match="train_points is 0"):
        PlanePoints(train_points=0)
