"""Density estimation on sets whose density is known; checkpoints; mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from ssl_ebm.data import PlanePoints
from ssl_ebm.energy.objectives import GridLikelihood, PersistentContrastiveDivergence
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import DensityEstimation, load_task
from ssl_ebm.tasks.saving import LastCheckpoint, last_checkpoint


def described(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"ssl_ebm.{path}", "init_args": arguments}


POINTS = described("networks.PointEnergy", width=64, depth=2, confine=0.1, frequencies=2)
GRID = described("energy.objectives.GridLikelihood", low=-4.0, high=4.0, points=60)
LANGEVIN = described("energy.sampling.Langevin", step_size=0.01)
NOISE = described("energy.noise.UniformNoise", shape=[2], low=-3.0, high=3.0)
PERSISTENT = described(
    "energy.objectives.PersistentContrastiveDivergence",
    sampler=LANGEVIN,
    steps=5,
    buffer=described("energy.objectives.ReplayBuffer", size=256, noise=NOISE),
)


def fit(task: DensityEstimation, tmp_path: Path, steps: int, **data: Any) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=[LastCheckpoint(tmp_path, steps)],
    )
    trainer.fit(task, datamodule=PlanePoints("eight_gaussians", batch_size=128, **data))
    return trainer


class Seen(nn.Module):
    """An objective that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[Tensor] = []

    def forward(self, model: nn.Module, y: Tensor, *_: Any) -> Tensor:
        self.data.append(y)
        loss: Tensor = model(y).mean()
        return loss


def test_training_data_is_blurred_and_kept_in_range(tmp_path: Path) -> None:
    for noise, limits in ((0.0, None), (0.5, None), (0.5, [-1.0, 1.0])):
        task = DensityEstimation(POINTS, GRID, data_noise=noise, data_range=limits)  # type: ignore[arg-type]
        task.objective = seen = Seen()
        fit(task, tmp_path, 8)
        data = torch.cat(seen.data)
        plain = torch.cat([PlanePoints("eight_gaussians").source.sample(4000, 1)])
        expected = plain.var(0) + noise**2 if limits is None else None
        if expected is None:
            assert data.abs().max() == 1
        else:
            torch.testing.assert_close(data.var(0), expected, rtol=0.1, atol=0)


def test_the_density_is_learnt(tmp_path: Path) -> None:
    """Mean log-density of unseen points, against the true density's."""
    torch.manual_seed(0)
    task = DensityEstimation(POINTS, GRID, lr=5e-3)
    data = PlanePoints("eight_gaussians")
    unseen = data.source.sample(2000, seed=99)
    exact = GridLikelihood(-4.0, 4.0, 100)
    truth = float(data.source.log_density(unseen).mean())

    def gap() -> float:
        with torch.no_grad():
            return truth - float(exact.log_density(task.energy, unseen).mean())

    before = gap()
    fit(task, tmp_path, 400)
    assert before > 1.0
    assert 0 < gap() < 0.2


def test_samples_follow_the_energy() -> None:
    task = DensityEstimation(
        described("networks.PointEnergy", depth=0, confine=4.0), GRID, LANGEVIN, NOISE, sample_steps=300
    )
    torch.nn.init.zeros_(task.energy.network.layers[0].weight)
    state = task.sample(4000, torch.Generator().manual_seed(0)).state
    assert state.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.06)


def test_a_checkpoint_rebuilds_all_of_it(tmp_path: Path) -> None:
    task = DensityEstimation(POINTS, PERSISTENT, LANGEVIN, NOISE)
    fit(task, tmp_path, 6)
    loaded = load_task(last_checkpoint(tmp_path), DensityEstimation)
    y = torch.randn(5, 2)
    assert torch.equal(loaded.free_energy(y), task.free_energy(y))
    assert isinstance(loaded.objective, PersistentContrastiveDivergence)
    assert isinstance(task.objective, PersistentContrastiveDivergence)
    assert torch.equal(loaded.objective.buffer.states, task.objective.buffer.states)
    assert loaded.sampler == task.sampler


def test_a_latent_bank_gets_the_index(tmp_path: Path) -> None:
    decoder = described("networks.Mlp", inputs=1, outputs=2, width=16)
    ball = described("energy.Ball", dim=1, radius=1.0)
    energy = described(
        "energy.unconditional.LatentEnergy",
        model=described("energy.PredictiveEnergy", decoder=decoder, latent=ball),
        inference=described("energy.GradientDescent", steps=3, lr=0.1),
    )
    task = DensityEstimation(energy, described("energy.objectives.LatentBank", count=128, latent=ball))
    before = task.objective.bank.detach().clone()
    fit(task, tmp_path, 2, train_points=128, fresh=False)
    assert int((task.objective.bank != before).sum()) == 128


def test_training_noise_blurs_the_data_and_evaluation_does_not(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    task = DensityEstimation(POINTS, GRID, data_noise=0.5)
    objective = task.objective.forward

    def watched(model: Any, y: Tensor, *rest: Any) -> Tensor:
        seen.append(y.detach())
        return objective(model, y, *rest)

    task.objective.forward = watched  # type: ignore[method-assign]
    fit(task, tmp_path, 20)
    noisy = torch.cat(seen)
    source = PlanePoints("eight_gaussians").source
    # the radius of a Gaussian cloud of standard deviation s has mean s sqrt(pi / 2)
    assert float(source.distance(source.sample(2000, 0)).mean()) == pytest.approx(0.15 * 1.2533, rel=0.05)
    assert float(source.distance(noisy).mean()) > 0.4


def test_representation_is_that_of_the_energy() -> None:
    assert DensityEstimation(POINTS, GRID).representation(torch.zeros(3, 2)).shape == (3, 64)
    bare = described("energy.unconditional.GaussianMixture", components=2, dim=2)
    with pytest.raises(UserError, match="GaussianMixture has no features and no encoder"):
        DensityEstimation(bare, GRID).representation(torch.zeros(3, 2))


def test_divergence_names_objective_step_and_value(tmp_path: Path) -> None:
    task = DensityEstimation(POINTS, described("energy.objectives.Margin", noise=0.1), lr=1.0)
    with torch.no_grad():
        task.energy.network.layers[0].weight.fill_(float("inf"))
    with pytest.raises(UserError, match=r"Margin: the training loss is not finite \(nan\) at or shortly"):
        fit(task, tmp_path, 60)
    assert not last_checkpoint(tmp_path).exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"data_range": (1.0, 0.0)}, r"data_range is \[1.0, 0.0\]"),
        ({"sample_steps": 0}, "sample_steps is 0"),
        ({"data_noise": -1.0}, "data_noise is -1.0"),
        ({"sampler": LANGEVIN}, "give both, or neither"),
        ({"objective": described("energy.objectives.Margin", noise=0.0)}, "noise is 0.0"),
        ({"energy": described("energy.Nothing")}, "no attribute 'Nothing'"),
    ],
)
def test_mistakes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        DensityEstimation(**{"energy": POINTS, "objective": GRID, **settings})


def test_a_batch_without_y_and_a_task_without_a_sampler() -> None:
    task = DensityEstimation(POINTS, GRID, input="image")
    with pytest.raises(UserError, match=r"a batch has point, index and no image: set model\.input"):
        task.data_of({"point": torch.zeros(1, 2), "index": torch.zeros(1)})
    with pytest.raises(UserError, match=r"set model\.sampler and model\.start"):
        task.sample(3)
