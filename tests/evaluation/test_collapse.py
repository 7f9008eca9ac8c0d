"""Each failure on a toy that has it, and none on a healthy one."""

import math
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.collapse import (
    CollapseCheck,
    code_usage,
    dead_share,
    energy_ratio,
    inspect,
    latent_effect,
    perplexity,
)


def _report(model: Any, world: Any, clips: range = range(24)) -> Any:
    video = torch.stack([world[i]["video"] for i in clips])
    generator = torch.Generator().manual_seed(0)
    return inspect(model, video[:, :2], video[:, 2], torch.tensor(list(clips)), generator)


def test_healthy_model_raises_no_warning(world: Any, exact: Any) -> None:
    class Imperfect(type(exact)):  # type: ignore[misc]
        """The exact world seen through a slightly wrong decoder: no energy is exactly zero."""

        def table(self, x: torch.Tensor) -> torch.Tensor:
            return super().table(x) * 0.95

    report = _report(Imperfect(world), world)
    assert report.warnings() == []
    assert report.energy_ratio_other_clip > 5
    assert 0.2 < report.latent_effect < 0.6
    assert report.dead_share == 0.0


def test_flat_energy_is_noticed(world: Any, copier: Any) -> None:
    found = _report(copier, world).warnings()
    assert [sentence.split(":")[0] for sentence in found] == ["flat energy", "flat energy"]


def test_ignored_latent_is_noticed(world: Any, deaf: Any) -> None:
    found = _report(deaf, world).warnings()
    assert any(sentence.startswith("ignored latent") for sentence in found)


def test_dead_codes_are_noticed(world: Any, exact: Any) -> None:
    class OneCode(type(exact)):  # type: ignore[misc]
        """Two codes are never the best: their energy is too high."""

        def energies_by_code(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().energies_by_code(x, y) + torch.tensor([0.0, 1e3, 1e3, 1e3])

    report = _report(OneCode(world), world)
    assert report.dead_share == 0.75
    assert report.perplexity == pytest.approx(1.0)
    assert any(sentence.startswith("dead codes: 75% of 4") for sentence in report.warnings())


def test_too_few_frames_say_nothing_about_dead_codes(world: Any, exact: Any) -> None:
    assert math.isnan(_report(exact, world, range(15)).dead_share)
    assert not math.isnan(_report(exact, world, range(16)).dead_share)


def test_figures_in_closed_form() -> None:
    usage = code_usage(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [5.0, 1.0, 2.0], [0.0, 1.0, 2.0]]))
    assert usage.tolist() == [0.75, 0.25, 0.0]
    assert dead_share(usage) == pytest.approx(1 / 3)
    assert perplexity(usage) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert perplexity(torch.full((8,), 1 / 8)) == pytest.approx(8.0)
    assert energy_ratio(torch.tensor([1.0, 3.0]), torch.tensor([8.0, 8.0])) == 4.0


def test_latent_effect_of_exact_samples_is_one_half(generator: torch.Generator) -> None:
    draws = torch.randn(200, 101, 1, 3, 3, generator=generator)
    assert latent_effect(draws[:, 1:], draws[:, 0]) == pytest.approx(0.5, rel=0.05)
    same = draws[:, :1].expand(-1, 4, -1, -1, -1)
    assert latent_effect(same, draws[:, 1]) == pytest.approx(0.0, abs=1e-12)


class ToyTask(LightningModule):
    """Wraps a toy model for a Trainer; its one weight learns nothing of use."""

    context_frames = 2

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.weight = torch.nn.Parameter(torch.ones(3))
        for name in ("prior_sample", "decode", "infer", "free_energy", "energies_by_code", "sample"):
            setattr(self, name, getattr(model, name))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return (self.weight * torch.randn(3)).square().sum()

    def validation_step(self, batch: Any, index: int) -> None:
        assert not self.training

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(task: ToyTask, world: Any, callbacks: list[Any], folder: Any) -> torch.Tensor:
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        default_root_dir=folder,
        accelerator="cpu",
        limit_train_batches=3,
    )
    loader = DataLoader(world, batch_size=8)
    trainer.fit(task, loader, loader)
    return task.weight.detach().clone()


def test_callback_warns_and_leaves_training_as_it_was(world: Any, deaf: Any, tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = _fit(ToyTask(deaf), world, [], tmp_path)
    check = CollapseCheck(items=20)
    with pytest.warns(UserWarning, match="ignored latent"):
        watched = _fit(ToyTask(deaf), world, [check], tmp_path)
    assert torch.equal(alone, watched)
    assert check.report is not None
    assert check.report.items == 20


def test_callback_says_nothing_of_a_healthy_model(world: Any, exact: Any, tmp_path: Any) -> None:
    check = CollapseCheck()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="step .*: (flat|ignored|dead)")
        _fit(ToyTask(exact), world, [check], tmp_path)
    assert check.report is not None
    assert check.report.dead_share == 0.0


@pytest.mark.parametrize("settings", [{"items": 1}, {"every_n_validations": 0}], ids=str)
def test_checks_of_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(settings))} is .: use at least"):
        CollapseCheck(**settings)


def test_least_squares_is_left_alone(world: Any, mean: Any, tmp_path: Any) -> None:
    check = CollapseCheck()
    task = ToyTask(mean)
    task.objective = "least_squares"  # type: ignore[assignment]
    _fit(task, world, [check], tmp_path)
    assert check.report is None
