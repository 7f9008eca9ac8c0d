"""A task and data of a few numbers, for tests of what is around a task: commands, checkpoints, launching."""

import os
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from ssl_ebm.data.loading import StreamLoader
from ssl_ebm.data.sampling import StreamSampler
from ssl_ebm.errors import UserError


class ToyTask(LightningModule):
    """Linear regression with noise on its inputs.

    Args:
        width: number of inputs.
        beta: must be above 0.
        noise: standard deviation of the noise.
        pause: seconds that each step lasts, so that there is time to interrupt it.
    """

    def __init__(self, width: int = 4, beta: float = 1.0, noise: float = 0.1, pause: float = 0.0) -> None:
        super().__init__()
        if beta <= 0:
            raise UserError(f"beta must be above 0, got {beta}")
        self.save_hyperparameters()
        self.noise = noise
        self.pause = pause
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        time.sleep(self.pause)
        (x,) = batch
        loss = (self.layer(x + self.noise * torch.randn_like(x)) - x.sum(1, keepdim=True)).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val_mean", self.layer(batch[0]).mean() + 0 * torch.rand(()), sync_dist=True)

    test_step = validation_step

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class OtherTask(ToyTask):
    """Another task of the same shape."""


class PrivateTask(ToyTask):
    """The same with a password, which it keeps as it keeps all settings.

    Args:
        api_key: its password.
        server: another one, within.
    """

    def __init__(
        self, api_key: str | None = None, server: dict[str, Any] | None = None, width: int = 4
    ) -> None:
        super().__init__(width)
        self.save_hyperparameters()


class ToyData(LightningDataModule):
    """Random rows, in the project's resumable training stream.

    Args:
        width: numbers in a row.
        rows: rows in an epoch.
    """

    def __init__(self, width: int = 4, rows: int = 40) -> None:
        super().__init__()
        self.dataset = TensorDataset(torch.randn(rows, width, generator=torch.Generator().manual_seed(0)))
        self.rows = rows

    def train_dataloader(self) -> StreamLoader:
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        batch_size = 8 // processes
        # The stream asks for items of later epochs too.
        dataset = _Endless(self.dataset)
        return StreamLoader(
            dataset, sampler=StreamSampler(dataset, batch_size, 0, processes, rank), batch_size=batch_size
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.dataset, batch_size=8)

    test_dataloader = predict_dataloader = val_dataloader


class AtTheEnd(Callback):
    """Sets all weights to 7 when training ends, as one does that averages them; or fails.

    Args:
        fails: the second.
    """

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.fails:
            raise OSError("nothing is there to measure")
        with torch.no_grad():
            for weights in pl_module.parameters():
                weights.fill_(7)


class NamedData(ToyData):
    """The same with a name, and words.

    Args:
        name, words, rates: for settings.
        password: as of `PrivateData`.
    """

    def __init__(
        self,
        name: str | None = None,
        words: list[str] | None = None,
        rates: dict[str, float] | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__()
        self.name, self.words, self.rates = name, words, rates


class PrivateData(ToyData):
    """The same of a server that asks for a password.

    Args:
        user: its name there.
        api_token: its password.
        credentials: of other servers.
    """

    def __init__(
        self,
        user: str,
        api_token: str | None = None,
        credentials: dict[str, Any] | None = None,
        width: int = 4,
    ) -> None:
        super().__init__(width)
        self.user, self.api_token, self.credentials = user, api_token, credentials

    def describe(self) -> dict[str, Any]:
        return {"user": self.user, "server": {"name": "a", "password": self.api_token}}

    def fingerprint(self, of: str) -> str:
        """Of its own, which is none of the project's."""
        return of


class _Endless(torch.utils.data.Dataset[Any]):
    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


def thread_limit() -> dict[str, str]:
    """The environment for a process that a test starts: one thread, this module and this tree importable."""
    here = os.path.dirname(os.path.abspath(__file__))
    paths = os.pathsep.join([here, os.path.dirname(here)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
