"""Measures of unconditional energies, against closed forms and scikit-learn; their pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from ssl_ebm.data import FontDigits, PlanePoints
from ssl_ebm.energy.objectives import ContrastiveDivergence, Margin
from ssl_ebm.energy.sampling import Langevin
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation import DensityFigures, densities
from ssl_ebm.evaluation.densities import (
    collect,
    evaluate_density,
    nats_above_truth,
    nearest,
    separation,
    spread,
    stand_ins,
)
from ssl_ebm.evaluation.density_figures import tiled
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.networks import PointEnergy
from ssl_ebm.tasks import DensityEstimation


def described(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"ssl_ebm.{path}", "init_args": arguments}


def points_task(**settings: Any) -> DensityEstimation:
    torch.manual_seed(0)
    grid = described("energy.objectives.GridLikelihood", low=-4.0, high=4.0, points=20)
    sampler = described("energy.sampling.Langevin", step_size=0.01)
    start = described("energy.noise.UniformNoise", shape=[2], low=-3.0, high=3.0)
    energy = described("networks.PointEnergy", width=8, confine=1.0)
    return DensityEstimation(energy, grid, sampler, start, sample_steps=20, **settings)


def images_task() -> DensityEstimation:
    torch.manual_seed(0)
    sampler = described("energy.sampling.Langevin", step_size=0.01, low=0.0, high=1.0)
    start = described("energy.noise.UniformNoise", shape=[1, 12, 12], low=0.0, high=1.0)
    energy = described("networks.ImageEnergy", size=[12, 12], width=4, levels=2)
    margin = described("energy.objectives.Margin", noise=0.3)
    return DensityEstimation(energy, margin, sampler, start, sample_steps=16, input="image")


def digits(**settings: Any) -> FontDigits:
    return FontDigits(size=12, train_images=60, val_images=20, test_images=40, batch_size=10, **settings)


class Bowl(nn.Module):
    """F(y) = |y|^2 / 2: the standard normal density."""

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * y.flatten(1).square().sum(1)


def draw_from_the_global_generator(*_: object) -> None:
    torch.rand(1)


def test_separation_is_scikit_learns_auroc() -> None:
    """With ties and sets of different sizes; its interval is about that of Hanley and McNeil (1982)."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(300, generator=generator).round(decimals=1)
    other = (torch.randn(120, generator=generator) + 0.5).round(decimals=1)
    expected = roc_auc_score([0] * 300 + [1] * 120, torch.cat([real, other]).numpy())
    found = separation(real, other)
    assert found.value == pytest.approx(expected)
    a, q1, q2 = expected, expected / (2 - expected), 2 * expected**2 / (1 + expected)
    error = math.sqrt((a * (1 - a) + 119 * (q1 - a * a) + 299 * (q2 - a * a)) / (300 * 120))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert separation(real, real).value == pytest.approx(0.5)


def test_stand_ins_have_what_they_are_named_for() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(5000, 2, generator=generator) @ torch.tensor([[1.0, 0.8], [0.0, 0.3]]) + 2
    made = stand_ins(real, generator)
    assert set(made) == {"uniform", "gaussian"}
    torch.testing.assert_close(torch.cov(made["gaussian"].T), torch.cov(real.T), atol=0.08, rtol=0)
    torch.testing.assert_close(made["gaussian"].mean(0), real.mean(0), atol=0.08, rtol=0)
    with pytest.raises(UserError, match="2 test items"):
        stand_ins(real[:1], generator)
    assert made["uniform"].min() >= real.min()
    assert float(made["uniform"].mean()) == pytest.approx(float(real.min() + real.max()) / 2, abs=0.1)

    images = torch.rand(30, 3, 4, 5, generator=generator)
    made = stand_ins(images, generator)
    torch.testing.assert_close(made["shuffled"].flatten(2).sort(2)[0], images.flatten(2).sort(2)[0])
    colours = images.flatten(2).transpose(1, 2)  # a place moves with all its channels
    moved = made["shuffled"].flatten(2).transpose(1, 2)
    for before, after in zip(colours, moved, strict=True):
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    assert images.min() <= made["gaussian"].min() <= made["gaussian"].max() <= images.max()


@pytest.mark.parametrize("flip", [False, True])
def test_nearest_is_scikit_learns(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among all training items, also in several parts, and mirrored where training mirrors."""
    monkeypatch.setattr(densities, "AT_ONCE", 16)
    data = digits(flip=flip)
    data.setup("fit")
    train = torch.stack([data.train_dataset[i]["image"] for i in range(60)]) if not flip else None
    if train is None:
        plain = digits()
        plain.setup("fit")
        train = torch.stack([plain.train_dataset[i]["image"] for i in range(60)])
        train = torch.cat([train, train.flip(-1)])
    y = torch.rand(20, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    found, difference = nearest(y, images_task(), data)
    distance, index = NearestNeighbors(n_neighbors=1).fit(train.flatten(1)).kneighbors(y.flatten(1))
    torch.testing.assert_close(found, train[index[:, 0]])
    np.testing.assert_allclose(difference.numpy(), distance[:, 0] / 12, rtol=1e-5)


def test_training_items_are_compared_as_they_are() -> None:
    """A sample that is a training image has its distance 0, though trainings crop it."""
    data, task = digits(crop=0.5), images_task()
    data.setup("fit")
    plain = data.train_dataset.plain()
    images = torch.stack([plain[i]["image"] for i in range(60)])
    assert torch.equal(collect(task, data, "train", 60), images)
    found, difference = nearest(images[:20], task, data)
    assert torch.equal(found, images[:20])
    assert difference.tolist() == [0.0] * 20


def test_nats_are_those_of_two_gaussians() -> None:
    """KL(N(0, s^2 I) | N(0, I)) = D / 2 (s^2 - 1 - log s^2) in two dimensions."""
    y = 0.6 * torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    log_density = -0.5 * (y / 0.6).square().sum(1) - math.log(2 * math.pi * 0.36)
    expected = 0.36 - 1 - math.log(0.36)
    assert nats_above_truth(Bowl(), y, log_density) == pytest.approx(expected, abs=0.02)


def test_items_are_spread_over_the_split() -> None:
    """Files may be sorted by class."""
    task, data = images_task(), digits()
    found = collect(task, data, "train", 20)
    assert torch.equal(found, torch.stack([data.train_dataset[3 * i]["image"] for i in range(20)]))
    assert spread(torch.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert len(collect(task, data, "test", 1000)) == 40


def test_a_density_is_measured_and_left_as_it_was() -> None:
    task, data = points_task(), PlanePoints("eight_gaussians", train_points=300, test_points=400)
    task.energy = Bowl()
    task.energy.register_forward_pre_hook(draw_from_the_global_generator)
    task.train()
    state = torch.get_rng_state()
    found = evaluate_density(task, data, {}, items=400, samples=50)
    assert task.training
    assert torch.equal(torch.get_rng_state(), state)
    real = found.real
    torch.testing.assert_close(found.energies["test"], 0.5 * real.square().sum(1))
    # the truth's mean log-density is that of the mixture; exp(-F) / Z is the standard normal density
    truth = data.source.log_density(real).mean() + (0.5 * real.square().sum(1)).mean() + math.log(2 * math.pi)
    assert found.nats_above_truth is not None
    assert found.nats_above_truth.value == pytest.approx(float(truth), abs=0.01)
    assert found.nats_above_truth.low < float(truth) < found.nats_above_truth.high
    assert found.copies is not None
    assert set(found.auroc) == {"train", "uniform", "gaussian", "samples"}
    written = found.as_dict()
    assert written["items"] == {"test": 400, "train": 300, "uniform": 400, "gaussian": 400, "samples": 50}
    again = evaluate_density(task, data, {}, items=400, samples=50)
    assert again.as_dict() == written
    other = evaluate_density(task, data, {"rings": PlanePoints("rings")}, items=100, samples=50)
    assert "rings" in other.auroc
    with pytest.raises(UserError, match=r"digits has the shape \(1, 28, 28\) and FontDigits \(1, 12, 12\)"):
        evaluate_density(images_task(), digits(), {"digits": FontDigits(size=28)}, items=10)


def test_a_density_without_an_end_has_no_distance_from_the_truth() -> None:
    task = points_task()
    task.energy, task.sampler = PointEnergy(width=8), None
    found = evaluate_density(task, PlanePoints("rings", train_points=50, test_points=50), {})
    assert found.nats_above_truth is None
    assert found.copies is None


def test_the_models_temperature_is_that_of_its_objective_or_of_the_objectives_chains() -> None:
    task = points_task()
    assert densities.model_beta(task) == 1
    task.objective.beta = 3.0
    assert densities.model_beta(task) == 3
    task.objective = ContrastiveDivergence(Langevin(0.1, beta=2.0), 1)
    assert densities.model_beta(task) == 2
    task.objective = Margin(0.1)
    assert densities.model_beta(task) == 1


def test_sets_have_names_of_their_own() -> None:
    with pytest.raises(UserError, match="against has a set named 'train'"):
        evaluate_density(points_task(), PlanePoints(), {"train": PlanePoints()})


def test_samples_that_are_training_items_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = points_task(), PlanePoints("rings", train_points=300, test_points=300)
    data.setup("fit")
    train = torch.stack([data.train_dataset[i]["point"] for i in range(20)])
    half = torch.cat([train[:10], train[10:] + 0.5])
    chains = task.sample(20)
    monkeypatch.setattr(task, "sample", lambda *_, **__: replace(chains, state=half))
    assert evaluate_density(task, data, {}, samples=20).copies == pytest.approx(0.5)


def test_an_energy_that_is_not_finite_is_named() -> None:
    task = points_task()
    task.sampler = None
    task.energy = nn.Sequential(Bowl(), nn.Threshold(1.0, math.nan))
    with pytest.raises(UserError, match=r"F is not finite on test \(\d+ items\)"):
        evaluate_density(task, PlanePoints(train_points=50, test_points=50), {}, samples=4)


def test_tiles_stand_in_rows_with_lines_between() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 4) / 5
    sheet = tiled(images, columns=3)
    assert sheet.shape == (6, 15, 3)
    assert sheet[3, 5, 0] == pytest.approx(0.8)
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, 4]).all()
    assert np.isnan(sheet[3:, 10:]).all()


@pytest.mark.parametrize("kind", ["points", "images"])
def test_figures_are_drawn_while_training_and_change_nothing(kind: str, tmp_path: Path) -> None:
    weights = []
    for drawn in (True, False):
        task = points_task(lr=0.01) if kind == "points" else images_task()
        data = PlanePoints(train_points=64, val_points=32, batch_size=16) if kind == "points" else digits()
        trainer = Trainer(
            max_steps=8,
            val_check_interval=4,
            check_val_every_n_epoch=None,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
            callbacks=[DensityFigures(samples=4)] if drawn else [],
        )
        torch.manual_seed(1)
        trainer.fit(task, datamodule=data)
        weights.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    assert torch.equal(*weights)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["density-step-0000004.png", "density-step-0000008.png"]
    assert all(path.read_bytes()[1:4] == b"PNG" for path in (tmp_path / "figures").iterdir())


def test_what_is_made_of_the_test_items_is_resampled_with_them() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(400, generator=generator)
    made = 0.9 * real + 0.4 * torch.randn(400, generator=generator) + 0.3
    paired, apart = separation(real, made, paired=True), separation(real, made)
    peer = Bootstrap(np.arange(400)).auroc(real.numpy(), made.numpy()).interval()
    assert paired.value == apart.value == pytest.approx(peer.value)
    assert paired.high - paired.low == pytest.approx(peer.high - peer.low, rel=0.1)
    assert apart.high - apart.low > 2 * (paired.high - paired.low)
