"""Figures of futures: right pixels in the right place, in files and loggers, and training none the wiser."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from PIL import Image
from torch.utils.data import DataLoader

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.callbacks import FutureFigures
from ssl_ebm.evaluation.pictures import (
    BORDER,
    GAP,
    HEADING,
    PREDICTED,
    TRUTH,
    animated_grid,
    frame_grid,
    to_picture,
    write_gif,
    write_png,
)


def test_every_frame_is_in_its_place_unchanged(generator: torch.Generator, tmp_path: Path) -> None:
    rows = [[torch.rand(1, 4, 5, generator=generator) for _ in range(3)] for _ in range(2)]
    path = write_png(
        frame_grid(rows, ["a", "b", "c"], [TRUTH, PREDICTED], scale=2), tmp_path / "new" / "grid.png"
    )
    picture = np.asarray(Image.open(path))
    for r in range(2):
        for c in range(3):
            top = HEADING + GAP + r * (8 + 2 * BORDER + GAP)
            left = GAP + c * (10 + 2 * BORDER + GAP)
            inside = picture[top + BORDER : top + BORDER + 8, left + BORDER : left + BORDER + 10]
            np.testing.assert_array_equal(inside, to_picture(rows[r][c], 2))
    assert tuple(picture[HEADING + GAP, GAP]) == TRUTH


def test_levels_are_rounded_and_clamped() -> None:
    frame = torch.tensor([[[-0.5, 0.5, 1.5]]])
    assert to_picture(frame)[0, :, 0].tolist() == [0, 128, 255]
    colours = torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1)
    assert to_picture(colours)[0, 0].tolist() == [255, 0, 51]


def test_animation_has_every_step_even_where_nothing_moves(tmp_path: Path) -> None:
    clip = torch.zeros(6, 1, 4, 4)
    clip[4:] = 1.0
    path = write_gif(animated_grid([[clip, clip]], context_frames=2, scale=1), tmp_path / "clip.gif", 5)
    with Image.open(path) as animation:
        durations, levels = [], []
        for step in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(step)
            durations.append(animation.info["duration"])
            levels.append(int(np.asarray(animation.convert("RGB"))[GAP + BORDER + 1, GAP + BORDER + 1, 0]))
    assert sum(durations) == pytest.approx(6 * 200)
    assert (levels[0], levels[-1]) == (0, 255)


class PictureLogger(CSVLogger):
    """Remembers what it is given, as a logger that takes images and videos would."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.given: list[tuple[str, str, int]] = []

    def log_image(self, key: str, images: list[str], step: int) -> None:
        self.given.append((key, Path(images[0]).name, step))

    def log_video(self, key: str, videos: list[str], step: int) -> None:
        raise OSError("no network")


class ToyTask(LightningModule):
    context_frames = 2

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.dropout = torch.nn.Dropout()
        for name in ("prior_sample", "decode", "infer"):
            setattr(self, name, getattr(model, name))

    def sample(self, x: torch.Tensor, samples: int, horizon: int = 1, generator: Any = None) -> torch.Tensor:
        assert not self.dropout.training
        assert not torch.is_grad_enabled()
        torch.rand(7)  # an impolite model, which draws global numbers too
        return self.model.sample(x, samples, horizon, generator)

    def free_energy(self, x: torch.Tensor, y: torch.Tensor, beta: float = math.inf) -> torch.Tensor:
        return self.model.free_energy(x, y, beta)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        assert self.dropout.training
        return (self.weight * torch.randn(3)).square().sum()

    def validation_step(self, batch: Any, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(
    task: LightningModule, world: Any, folder: Path, logger: Logger | bool, *callbacks: Any
) -> torch.Tensor:
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=2,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        limit_train_batches=3,
    )
    loader = DataLoader(world, batch_size=8)
    trainer.fit(task, loader, loader)
    return task.weight.detach().clone()  # type: ignore[operator]


def test_figures_are_written_and_training_is_the_same(world: Any, exact: Any, tmp_path: Path) -> None:
    logger = PictureLogger(tmp_path / "logs")
    with pytest.warns(UserWarning, match="took no futures-step-0000003.gif: no network"):
        watched = _fit(ToyTask(exact), world, tmp_path, logger, FutureFigures(clips=2, samples=3))
    assert torch.equal(watched, _fit(ToyTask(exact), world, tmp_path, False))
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert files == [f"futures-step-{step:07d}.{kind}" for step in (3, 6) for kind in ("gif", "png")]
    assert logger.given == [("futures/image", f"futures-step-{s:07d}.png", s) for s in (3, 6)]
    first, second = (np.asarray(Image.open(tmp_path / "figures" / name)) for name in (files[1], files[3]))
    np.testing.assert_array_equal(first, second)  # same clips, same noise: only the weights may differ


def test_shown_clips_are_uncertain_ones_unless_they_are_named(world: Any, exact: Any) -> None:
    chosen = FutureFigures(clips=3)._choose(world)
    assert [world.states(clip[None, :2])[0] for clip in chosen] == [1, 2, 4]
    named = FutureFigures(clips=[6, 3])._choose(world)
    assert [world.states(clip[None, :2])[0] for clip in named] == [6, 3]


def test_shown_clips_are_windows_of_different_ones_spread_over_the_set() -> None:
    class Windows:
        """Of 10 clips, 100 each."""

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"video": torch.full((3, 1, 4, 4), float(index)), "clip": torch.tensor(index // 100)}

    shown = [int(video[0, 0, 0, 0]) // 100 for video in FutureFigures(clips=4)._choose(Windows())]
    assert shown == [0, 2, 5, 7]
    assert len(FutureFigures(clips=16)._choose(Windows())) == 10


def test_figures_begin_anew_with_each_training(make_world: Any, exact: Any, tmp_path: Path) -> None:
    figures = FutureFigures(clips=2, samples=3, every_n_validations=3)
    for seed in (0, 1):
        world = make_world(seed=seed)
        task = ToyTask(type(exact)(world))
        _fit(task, world, tmp_path / str(seed), False, figures)
        drawn = sorted(path.name for path in (tmp_path / str(seed) / "figures").iterdir())
        assert drawn == [f"futures-step-0000003.{kind}" for kind in ("gif", "png")]
        assert figures._video is not None
        assert torch.equal(figures._video, torch.stack([world[1]["video"], world[2]["video"]]))


@pytest.mark.parametrize(
    "settings",
    [
        {"clips": 0}, {"clips": []}, {"samples": 0}, {"horizon": 0}, {"every_n_validations": 0},
        {"frames_per_second": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_figures_of_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(settings))} is 0"):
        FutureFigures(**settings)


def test_least_squares_has_one_prediction(world: Any, mean: Any, exact: Any) -> None:
    video = torch.stack([world[1]["video"]])
    figures = FutureFigures(samples=4)
    narrow, steps = figures.draw(mean, video)
    wide, _ = figures.draw(exact, video)
    cell = 80 + 2 * BORDER + GAP
    assert narrow.shape[1] == GAP + (2 + 1 + 1) * cell
    assert wide.shape[1] == GAP + (2 + 1 + 4) * cell
    assert len(steps) == 3  # two of context, one after it
