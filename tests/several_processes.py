"""Training steps in one process of several, for tests of what the processes agree on."""

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from small_backbones import PATCHES
from torch import Tensor
from torch.utils.data import Dataset
from two_futures import small, trainer

from ssl_ebm.data import FontDigits, LabelledDocuments, MovingDigits, PlanePoints
from ssl_ebm.data.loading import StreamData
from ssl_ebm.data.special_tokens import SPECIAL
from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.energy.objectives import PersistentContrastiveDivergence
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation import CollapseCheck, CollapseMonitor, LinearProbe, OnlineProbe
from ssl_ebm.evaluation.probing.features import extract
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.tasks import DensityEstimation, FineTuning, Inpainting, MaskedText
from ssl_ebm.tasks.saving import LastCheckpoint
from ssl_ebm.tasks.seeding import SeededSteps
from ssl_ebm.tasks.sharing import place_of

STEPS, BATCH = 3, 8
SIZE, LENGTH, VOCABULARY = 16, 12, 20


def described(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"ssl_ebm.{path}", "init_args": arguments}


# --- models: every task, every objective, and whatever draws in a training step ---


def inpainting(objective: str, mask: dict[str, Any], network: dict[str, Any] | None = None) -> Inpainting:
    torch.manual_seed(0)
    network = network or described(
        "networks.completion.ConvolutionalCompletion", channels=1, parts=8, width=8, levels=1
    )
    return Inpainting(objective, network, mask, codes=4, warmup_steps=1, lr=5e-3)  # type: ignore[arg-type]


def masked_autoencoder() -> Inpainting:
    sizes = {"width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    network = described(
        "networks.patch_completion.PatchCompletion", size=SIZE, patch=4, channels=1, normalised=True, **sizes
    )
    return inpainting("least_squares", described("data.masks.Strokes", strokes=2, pieces=2), network)


def masked_text(unit: str, bag_of_words: float = 0.0) -> MaskedText:
    torch.manual_seed(0)
    sizes = {"vocabulary": VOCABULARY, "width": 8, "depth": 1, "heads": 2, "length": LENGTH}
    masking = described("data.corruption.TokenMasking", unit=unit, ratio=0.4)
    network = described("networks.text.TextEncoder", **sizes)
    return MaskedText(network, masking, lr=5e-3, warmup_steps=1, bag_of_words=bag_of_words)


BLOCKS = described("data.masks.Blocks")
MODELS: dict[str, Callable[[], Any]] = {
    "frames, least squares": lambda: small(objective="least_squares"),
    "frames, one-hot": lambda: small(latent="one_hot"),
    "frames, Gaussian with noise": lambda: small(latent="gaussian", latent_noise=0.3),
    "frames, ball from random starts": lambda: small(latent="ball", inference="gradient"),
    "pictures, least squares": lambda: inpainting("least_squares", described("data.masks.RandomPatches")),
    "pictures, latent": lambda: inpainting("latent_ebm", BLOCKS),
    "pictures, masked autoencoder": masked_autoencoder,
    "text, tokens": lambda: masked_text("token"),
    "text, spans": lambda: masked_text("span"),
    "text, bags of words": lambda: masked_text("token", 0.5),
}


# --- data ---


class Items(Dataset[dict[str, Tensor]]):
    """Pictures, and texts of very different lengths: the share of what is hidden differs among processes."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 1, SIZE, SIZE, generator=generator)
        shape = (count, LENGTH)
        self.tokens = torch.randint(len(SPECIAL), VOCABULARY, shape, generator=generator)
        ends = torch.randint(1, LENGTH + 1, (count, 1), generator=generator)
        self.tokens[torch.arange(LENGTH) >= ends] = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = index % len(self)
        item = {"image": self.images[place], "tokens": self.tokens[place], "clip": torch.tensor(index)}
        return {name: v.double() if v.is_floating_point() else v for name, v in item.items()}


class ItemData(StreamData):
    def make_dataset(self, split: str) -> Items:
        return Items(20 if split == "train" else BATCH)

    def settings(self) -> dict[str, Any]:
        return {}


def digits(processes: int) -> MovingDigits:
    return MovingDigits(
        size=16, digit_size=8, context_frames=2, train_clips=20, val_clips=BATCH, glyphs_per_digit=2,
        batch_size=BATCH // processes,
    )  # fmt: skip


# --- training ---


class Record(Callback):
    """Keeps the gradient, the loss and the clips of every step of this process, and what it validates."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.clips: list[list[int]] = []
        self.figures: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.clips.append(batch["clip"].tolist())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.gradients.append(
            {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        )

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.figures.append({key: v.clone() for key, v in trainer.callback_metrics.items() if "train" in key})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.figures.append({key: v.clone() for key, v in trainer.callback_metrics.items() if "val" in key})


def take_steps(processes: int) -> dict[str, dict[str, Any]]:
    """Trains each model for a few steps in float64 and tells what this process saw."""
    seen = {}
    for name, make in MODELS.items():
        record = Record()
        fitter = trainer(
            STEPS,
            callbacks=[SeededSteps(0), record],
            precision="64-true",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            num_sanity_val_steps=0,
            val_check_interval=STEPS,
            check_val_every_n_epoch=None,
            log_every_n_steps=1,
        )
        task = make()
        data = digits(processes) if name.startswith("frames") else ItemData(BATCH // processes, 0, 0)
        fitter.fit(task, datamodule=data)
        assert place_of(task) == (processes, fitter.global_rank)
        seen[name] = {
            "gradients": record.gradients,
            "clips": record.clips,
            "figures": record.figures,
            "weights": {key: value.clone() for key, value in task.state_dict().items()},
        }
    return seen


class Poison(Callback):
    """Makes a pixel of y a NaN, or so large, in one process, in one step; keeps the clips of its steps."""

    def __init__(self, rank: int, step: int, pixel: float = math.nan) -> None:
        self.rank = rank
        self.step = step
        self.pixel = pixel
        self.clips: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.clips.append(batch["clip"].tolist())
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            batch["video"][0, 2, 0, 0, 0] = self.pixel


BAD_RANK, BAD_STEP = 1, 1  # the last step would not tell: nothing is synchronised after it


def diverge(folder: Path, skip_steps: int = 0, pixel: float = math.nan) -> dict[str, Any]:
    """What ends a training whose loss diverges in the second step, in process 1 alone; and its clips."""
    poison, task = Poison(BAD_RANK, BAD_STEP, pixel), small()
    task.skip_steps = skip_steps
    fitter = trainer(
        STEPS, callbacks=[poison, LastCheckpoint(folder, every_n_steps=100)], enable_checkpointing=True,
        devices=2, strategy="ddp", limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    error = "nothing"
    try:
        fitter.fit(task, datamodule=digits(2))
    except UserError as raised:
        error = str(raised)
    watch = task.divergence
    weights = torch.cat([p.detach().flatten() for p in task.parameters()])
    told = {"skipped": int(watch.skipped), "told": watch.told}
    return {"error": error, "clips": poison.clips, "weights": weights, **told}


def fine_tuned(processes: int) -> dict[str, Any]:
    """A fine-tuning of a few steps, evaluated on digits that no two or four processes can share evenly."""
    torch.manual_seed(0)
    backbone = described("tasks.Inpainting", network=PATCHES)
    task = FineTuning(backbone=backbone, drop_out=0.0, lr=0.01, warmup_steps=0)
    data = FontDigits(size=16, train_images=40, val_images=21, batch_size=BATCH // processes)
    strategy = "ddp" if processes > 1 else "auto"  # which stops where a parameter has no gradient
    fitter = trainer(STEPS, devices=processes, strategy=strategy, precision="64-true", limit_val_batches=0)
    fitter.fit(task, datamodule=data)
    fitter.limit_val_batches = 1.0
    fitter.validate(task, datamodule=data, verbose=False)
    return {"votes": tuple(task.votes["val"]), "weights": task.state_dict()}


def features() -> tuple[Tensor, Tensor]:
    """What a probe reads of 21 pictures, and their labels; of several processes each computes a part."""
    torch.manual_seed(0)
    data = FontDigits(size=16, train_images=40, val_images=21)
    data.setup()
    found = extract(Frozen(Inpainting(network=PATCHES)), data.val_dataset, range(21))
    return found.features, found.target


class Kept(Logger):
    """Keeps what is logged of probes and of collapse: (step, name, value)."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[tuple[int | None, str, float]] = []

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        watched = {name: v for name, v in metrics.items() if name.startswith(WATCHED)}
        self.figures += [(step, name, float(value)) for name, value in watched.items()]


WATCHED = ("online_probe/", "probe/", "collapse/")
WATCHED_STEPS = 20  # after which OnlineProbe tells its accuracy


def watched(processes: int, folder: Path) -> list[tuple[int | None, str, float]]:
    """What callbacks say of a training whose batches so many processes share, and of its validations."""
    sizes: dict[str, Any] = {"size": SIZE, "train_images": 40, "val_images": 20}
    labelled = [FontDigits(**sizes, seed=seed) for seed in (1, 2)]
    callbacks = [
        SeededSteps(0),
        OnlineProbe(labelled[0], every_n_steps=1, batch_size=16),
        LinearProbe(labelled[1], penalties=(1e-2, 1.0), every_n_steps=10),
        CollapseMonitor(items=18),
        CollapseCheck(items=18),
    ]
    kept = Kept()
    fitter = trainer(
        WATCHED_STEPS, callbacks=callbacks, logger=kept, precision="64-true", devices=processes,
        strategy="ddp" if processes > 1 else "auto", num_sanity_val_steps=0, val_check_interval=10,
        check_val_every_n_epoch=None, default_root_dir=folder,
    )  # fmt: skip
    data = FontDigits(**sizes, flip=True, crop=0.5, batch_size=BATCH // processes)
    fitter.fit(inpainting("latent_ebm", BLOCKS), datamodule=data)
    return kept.figures


def token_features() -> tuple[Tensor, ...]:
    """What an attentive probe reads of 21 texts of unlike length, of which one process has the longest."""
    torch.manual_seed(0)
    words = train_tokenizer(lambda: iter(["good bad"] * 20), 18).to_str()
    with tempfile.TemporaryDirectory() as folder:
        rows = [f"{'good ' * (20 if i == 4 else 2 + i % 3)},{'ab'[i % 2]}" for i in range(21)]
        for split in ("train", "val", "test"):
            Path(folder, f"{split}.csv").write_text("\n".join(["text,label", *rows]))
        data = LabelledDocuments(folder)
        data.use_tokenizer(words, 32)
        data.setup("test")
    sizes = {"vocabulary": 40, "width": 8, "depth": 1, "heads": 2, "length": 32}
    task = MaskedText(described("networks.text.TextEncoder", **sizes))
    found = extract(Frozen(task, "network.norm", "none"), data.test_dataset, range(21), batch_size=4)
    assert found.seen is not None
    return found.features, found.target, found.seen


def join(rank: int, port: int, processes: int) -> None:
    """Makes this process number `rank` of `processes`, as torchrun does."""
    torch.set_num_threads(1)
    os.environ.pop(
        "PL_GLOBAL_SEED", None
    )  # of another test: Lightning would draw by it in this process alone
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0",
        WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip


def one_process(rank: int, port: int, processes: int, folder: Path) -> None:
    """All that process number `rank` does for the tests; in one launch, which takes longer than the work."""
    join(rank, port, processes)
    seen: dict[str, Any] = {"steps": take_steps(processes)}
    seen["watched"] = watched(processes, folder / f"watched by {processes}")
    seen["fine_tuned"] = fine_tuned(processes)
    seen["features"] = features()
    seen["token features"] = token_features()
    if processes == 2:
        seen["chains"] = keep_chains(folder / "chains")
        seen["diverged"] = diverge(folder / "diverged")
        seen["left out"] = diverge(folder / "left out", skip_steps=1)
        seen["exploded"] = diverge(folder / "exploded", skip_steps=1, pixel=1e8)
    torch.save(seen, folder / f"{processes}-{rank}.pt")


def keep_chains(folder: Path) -> dict[str, Tensor]:
    """Persistent contrastive divergence: this process's chains before and after, and its weights."""
    torch.manual_seed(0)
    noise = described("energy.noise.UniformNoise", shape=[2], low=-3.0, high=3.0)
    objective = described(
        "energy.objectives.PersistentContrastiveDivergence",
        sampler=described("energy.sampling.Langevin", step_size=0.01),
        steps=2,
        buffer=described("energy.objectives.ReplayBuffer", size=32, noise=noise, refresh=0.0),
    )
    task = DensityEstimation(described("networks.PointEnergy", width=8), objective)
    buffer = cast(PersistentContrastiveDivergence, task.objective).buffer
    began = buffer.states.clone()
    callbacks = [SeededSteps(0), LastCheckpoint(folder, every_n_steps=100)]
    fitter = trainer(
        STEPS, callbacks=callbacks, enable_checkpointing=True, devices=2, strategy="ddp", limit_val_batches=0
    )
    fitter.fit(task, datamodule=PlanePoints("rings", train_points=64, batch_size=BATCH // 2))
    weights = torch.cat([p.detach().flatten() for p in task.energy.parameters()])
    return {"began": began, "ended": buffer.states, "weights": weights}


# --- what is the same ---


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    sizes = [value.double().norm() for value in expected.values()]
    size = torch.stack(sizes).norm()
    assert size > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=1e-9 * float(size), msg=name)
