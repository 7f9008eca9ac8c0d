"""The smallest world with an uncertain future, and small models of it, for tests of frame prediction."""

from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ssl_ebm.tasks import FramePrediction

SIZE, PATCH, PLACE, JUMP = 16, 6, 5, 2
SMALL: dict[str, Any] = {
    "context_frames": 2, "codes": 4, "latent_dim": 2, "width": 8, "levels": 1, "cell": 4, "radius": 2,
    "paints": 1, "features": 32, "warmup_steps": 5, "lr": 5e-3,
}  # fmt: skip


def frame(patches: Tensor, column: int) -> Tensor:
    """Patches (B, PATCH, PATCH) on black, at row PLACE: (B, 1, SIZE, SIZE)."""
    frames = torch.zeros(len(patches), 1, SIZE, SIZE)
    frames[:, 0, PLACE : PLACE + PATCH, column : column + PATCH] = patches
    return frames


def both_futures(clips: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Patches at rest that jump to the right or to the left, equally likely.

    Contexts (B, 2, 1, SIZE, SIZE) and their two next frames (B, 2, 1, SIZE, SIZE).
    """
    patches = 0.5 + 0.5 * torch.rand(clips, PATCH, PATCH, generator=torch.Generator().manual_seed(seed))
    x = frame(patches, PLACE)[:, None].expand(-1, 2, -1, -1, -1)
    return x.contiguous(), torch.stack([frame(patches, PLACE + JUMP), frame(patches, PLACE - JUMP)], 1)


def batch_of(x: Tensor, futures: Tensor) -> dict[str, Tensor]:
    """Every context with each of its futures: "video" (2 B, 3, 1, SIZE, SIZE)."""
    video = torch.cat([x[:, None].expand(-1, 2, -1, -1, -1, -1), futures[:, :, None]], 2)
    return {"video": video.flatten(0, 1)}


def small(objective: str = "latent_ebm", seed: int = 0, **settings: Any) -> FramePrediction:
    """A model that trains on this world in seconds."""
    torch.manual_seed(seed)
    return FramePrediction(objective, **{**SMALL, **settings})  # type: ignore[arg-type]


class _Repeated(TensorDataset):
    """One batch again and again."""

    def __init__(self, batch: dict[str, Tensor], steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]
        return self.batch


def loader(batch: dict[str, Tensor], steps: int) -> DataLoader[Any]:
    """A loader that hands out the same batch in every step."""
    return DataLoader(_Repeated(batch, steps), batch_size=None)


def trainer(steps: int, **settings: Any) -> Trainer:
    """A Trainer on the CPU that writes nothing."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(
        **{
            "max_steps": steps,
            "max_epochs": -1,
            "accelerator": "cpu",
            **dict.fromkeys(quiet, False),
            **settings,
        }
    )


def trained(task: FramePrediction, steps: int, batch: dict[str, Tensor] | None = None) -> FramePrediction:
    """The task after that many full-batch steps on this world (or on another batch), in evaluation mode."""
    torch.manual_seed(0)
    trainer(steps).fit(task, loader(batch or batch_of(*both_futures()), steps))
    return task.eval()
