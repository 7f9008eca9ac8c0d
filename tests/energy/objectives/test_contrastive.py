"""Contrastive objectives: against the likelihood's gradient, known optima, and formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy.noise import GaussianNoise, UniformNoise
from ssl_ebm.energy.objectives import (
    ContrastiveDivergence,
    GridLikelihood,
    Margin,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    ReplayBuffer,
)
from ssl_ebm.energy.sampling import Descent, Langevin, Mala
from ssl_ebm.errors import UserError

from .conftest import Bowl, cosine, gradient


def test_cd_with_many_steps_approaches_maximum_likelihood(
    network: nn.Module, exact: GridLikelihood, data: Tensor
) -> None:
    truth = gradient(exact(network, data), network)
    many = data.repeat(8, 1)
    found = [
        cosine(
            gradient(
                ContrastiveDivergence(Mala(0.02), k)(network, many, torch.Generator().manual_seed(0)), network
            ),
            truth,
        )
        for k in (1, 30, 600)
    ]
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.99


def test_cd_begins_at_the_data_and_its_kick_is_seen() -> None:
    model = Bowl(1.0)
    y = torch.full((4000, 1), 3.0, dtype=torch.float64)
    plain = ContrastiveDivergence(Descent(0.1), 2)
    torch.testing.assert_close(plain.negatives(model, y), y * 0.81)
    kicked = ContrastiveDivergence(Descent(0.1), 2, kick=0.5).negatives(
        model, y, torch.Generator().manual_seed(0)
    )
    assert float(kicked.mean()) == pytest.approx(3 * 0.81, abs=0.03)
    assert float(kicked.std()) == pytest.approx(0.5 * 0.81, rel=0.05)
    loss = plain(model, y)
    assert float(loss.detach()) == pytest.approx(4.5 * (1 - 0.81**2))


def test_persistent_chains_go_on_where_they_were() -> None:
    model = Bowl(1.0)
    buffer = ReplayBuffer(6, UniformNoise((1,), 2.0, 4.0).double(), refresh=0.0)
    before = buffer.states.clone()
    objective = PersistentContrastiveDivergence(Descent(0.1), 3, buffer)
    generator = torch.Generator().manual_seed(0)
    y = torch.ones(4, 1, dtype=torch.float64)
    loss = objective(model, y, generator)
    moved = buffer.states != before
    assert int(moved.sum()) == 4
    torch.testing.assert_close(buffer.states[moved], before[moved] * 0.9**3)
    negative = 0.5 * (before[moved] * 0.9**3).square().mean()
    assert float(loss.detach()) == pytest.approx(float(0.5 - negative))
    for _ in range(60):
        objective(model, y, generator)
    assert float(buffer.states.abs().max()) < 1e-3  # all were moved, again and again


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_chain_that_is_not_finite_stays_where_it_was(bad: float) -> None:
    buffer = ReplayBuffer(6, UniformNoise((2, 3), 2.0, 4.0), refresh=0.0)
    before = buffer.states.clone()
    states = torch.rand(3, 2, 3)
    states[1, 0, 2] = bad
    buffer.put(torch.tensor([4, 0, 2]), states)
    before[4], before[2] = states[0], states[2]
    assert torch.equal(buffer.states, before)


def test_a_step_with_a_nan_leaves_chains_for_the_next() -> None:
    """Its loss is a NaN, those of later steps are not: chains are as good as before."""
    buffer = ReplayBuffer(6, UniformNoise((1,), 2.0, 4.0).double(), refresh=0.0)
    objective = PersistentContrastiveDivergence(Descent(0.1), 3, buffer)
    y = torch.ones(6, 1, dtype=torch.float64)

    class Broken(Bowl):
        def forward(self, y: Tensor) -> Tensor:
            return super().forward(y) * math.nan

    before = buffer.states.clone()
    assert bool(objective(Broken(1.0), y).isnan())
    assert torch.equal(buffer.states, before)
    assert bool(objective(Bowl(1.0), y).isfinite())
    torch.testing.assert_close(buffer.states, before * 0.9**3)


def test_a_stated_share_of_chains_begins_anew() -> None:
    buffer = ReplayBuffer(4000, UniformNoise((1,), 2.0, 4.0), refresh=0.05)
    buffer.states.zero_()
    drawn, index = buffer.draw(4000, torch.Generator().manual_seed(0))
    assert sorted(index.tolist()) == list(range(4000))
    assert float((drawn != 0).float().mean()) == pytest.approx(0.05, abs=0.015)
    assert bool((buffer.states == 0).all())  # drawing alone writes nothing
    assert bool((ReplayBuffer(9, buffer.noise, refresh=1.0).draw(9)[0] >= 2).all())


def test_a_buffer_is_a_part_of_the_checkpoint() -> None:
    first, second = (ReplayBuffer(8, GaussianNoise((2,))) for _ in range(2))
    assert not torch.equal(first.states, second.states)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.states, second.states)


def test_persistent_gradient_approaches_the_likelihood(
    network: nn.Module, exact: GridLikelihood, data: Tensor
) -> None:
    buffer = ReplayBuffer(4096, UniformNoise((2,), -3.0, 3.0).double(), refresh=0.0)
    objective = PersistentContrastiveDivergence(Mala(0.02), 30, buffer)
    generator = torch.Generator().manual_seed(0)
    many = data.repeat(8, 1)
    truth = gradient(exact(network, data), network)
    first = cosine(gradient(objective(network, many, generator), network), truth)
    for _ in range(20):
        last = cosine(gradient(objective(network, many, generator), network), truth)
    assert last > max(first, 0.99)


@pytest.mark.parametrize("ratio", [1, 5])
def test_noise_contrast_is_at_rest_at_the_true_density_and_partition(ratio: int) -> None:
    """Data from N(0, 1/2): F = y^2 + 0.3 has log Z = log sqrt(pi) - 0.3; the gradient vanishes only there."""
    generator = torch.Generator().manual_seed(0)
    y = 0.5**0.5 * torch.randn(100_000, 1, dtype=torch.float64, generator=generator)
    objective = NoiseContrastive(GaussianNoise((1,), 0.0, 1.0).double(), ratio)
    model = Bowl(2.0, offset=0.3)

    def slope(log_partition: float) -> tuple[float, float]:
        with torch.no_grad():
            objective.log_partition.fill_(log_partition)
        loss = objective(model, y, torch.Generator().manual_seed(1))
        grads = torch.autograd.grad(loss, [model.log_precision, objective.log_partition])
        return float(grads[0]), float(grads[1])

    truth = 0.5 * math.log(math.pi) - 0.3
    assert slope(truth) == pytest.approx((0, 0), abs=0.006)
    assert abs(slope(truth + 0.3)[1]) > 0.03
    with torch.no_grad():
        model.log_precision += 0.3
    assert abs(slope(truth)[0]) > 0.01


def test_margins_by_hand() -> None:
    y = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    model = Bowl(1.0)
    xi = torch.randn(2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    data = [float(v) for v in 0.5 * y[:, 0] ** 2]
    made = [float(v) for v in 0.5 * (y + 0.7 * xi)[:, 0] ** 2]
    pairs = list(zip(data, made, strict=True))
    by_hand = {
        "hinge": sum(max(0, 2.0 + d - m) for d, m in pairs) / 2,
        "square_square": sum(d * d + max(0, 2.0 - m) ** 2 for d, m in pairs) / 2,
        "logistic": sum(math.log(1 + math.exp(d - m)) for d, m in pairs) / 2,
    }
    for form, expected in by_hand.items():
        found = Margin(0.7, 2.0, form)(model, y, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
        assert float(found.detach()) == pytest.approx(expected)


def test_no_gradient_flows_through_the_chains() -> None:
    model = Bowl(1.0)
    y = torch.full((1, 1), 2.0, dtype=torch.float64)
    (found,) = torch.autograd.grad(
        ContrastiveDivergence(Langevin(0.1, noise=0.0), 1)(model, y), model.log_precision
    )
    assert float(found) == pytest.approx(0.5 * 4 - 0.5 * (2 * 0.9) ** 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ContrastiveDivergence(Descent(0.1), 0), "contrastive divergence: steps is 0"),
        (lambda: ContrastiveDivergence(Descent(0.1), 1, kick=-1.0), "kick -1.0"),
        (lambda: ReplayBuffer(0, UniformNoise((1,), 0, 1)), "size is 0"),
        (lambda: ReplayBuffer(3, UniformNoise((1,), 0, 1), 1.5), "refresh 1.5"),
        (
            lambda: ReplayBuffer(3, UniformNoise((1,), 0, 1)).draw(4),
            "4 chains are asked of 3: set a larger size",
        ),
        (lambda: NoiseContrastive(UniformNoise((1,), 0, 1), 0), "ratio is 0"),
        (lambda: Margin(0.0), "noise is 0.0"),
        (lambda: Margin(1.0, form="huber"), "got 'huber'"),  # type: ignore[arg-type]
        (lambda: UniformNoise((1,), 1, 0), "low is 1 and high 0"),
        (lambda: GaussianNoise((1,), 0, 0.0), "std must be above 0"),
        (lambda: GaussianNoise((2,)).log_density(torch.zeros(3, 1)), r"y must be \(batch, 2\), got \(3, 1\)"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
