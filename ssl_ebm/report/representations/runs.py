"""The pieces of the study, each in a folder of its own: a pre-training, a fine-tuning, a probe.

What has been done before in the same way is read, not made again; a training that was broken off goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.loading import StreamData
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing.counted_words import counted_words
from ssl_ebm.evaluation.probing.features import RawInputs, extract, target_names
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.probes import linear_probe, regression_probe
from ssl_ebm.files import make_folder, sha256_of, write_whole
from ssl_ebm.report.representations.recipes import Layer, Training
from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.backbones import make_backbone
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.fine_tuning import FineTuning
from ssl_ebm.tasks.precision import bearable
from ssl_ebm.tasks.saving import LastCheckpoint, WholeFileIO, last_checkpoint, make_room, newest_whole
from ssl_ebm.tasks.seeding import SeededSteps

CHECKPOINT_EVERY = 500  # optimizer steps
Watch = Callable[[float], None]


@dataclass(frozen=True)
class Result:
    """What a run has left.

    Attributes:
        made_from: settings, seed, and checksums of what it began from: two runs with the same are the same.
        seconds: it took.
        items: of every test item, in their order: "right" 0 or 1; of a regression "wrong" and "spread", the
            squared error and the squared distance from the mean, for each target.
        facts: what else there is to say, such as labels and epochs.
    """

    made_from: dict[str, Any]
    seconds: float
    items: dict[str, list[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def finished(folder: Path, made_from: Mapping[str, Any]) -> Result | None:
    """The result in a folder, if it was made from the same."""
    try:
        found = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    if found.get("made_from") != json.loads(json.dumps(made_from)):
        return None
    return Result(found["made_from"], found["seconds"], found["items"], found["facts"])


def keep(folder: Path, result: Result) -> Result:
    """Writes result.json."""
    write_whole(folder / "result.json", json.dumps({**asdict(result), "versions": versions()}) + "\n")
    return result


class _Steps(Callback):
    """Tells how far a training is, as a share."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.watch(trainer.global_step / trainer.max_steps)


def train(
    task: LightningModule, data: StreamData, how: Training, seed: int, folder: Path, watch: Watch
) -> Trainer:
    """Trains for so many steps; goes on from the checkpoint in the folder, which must be of this training.

    The weights of the last step count; nothing is chosen on the way.
    """
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=how.steps,
        accelerator="auto",
        devices=1,
        precision=bearable(how.precision, "auto"),  # type: ignore[arg-type]
        gradient_clip_val=how.clip,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[WholeFileIO()],
        callbacks=[SeededSteps(seed), LastCheckpoint(folder, CHECKPOINT_EVERY), _Steps(watch)],
    )
    began = newest_whole(folder)
    make_room(folder, began)
    trainer.fit(task, datamodule=data, ckpt_path=began, weights_only=True)
    return trainer


def begin(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Readies a folder; checkpoints of another training in it are put aside."""
    make_folder(folder)
    started = folder / "started.json"
    wanted = json.dumps(made_from, sort_keys=True)
    if not started.is_file() or started.read_text() != wanted:
        make_room(folder, None)
        write_whole(started, wanted)


def pretrain(
    task: Callable[[], LightningModule], data: StreamData, how: Training, seed: int, folder: Path,
    made_from: Mapping[str, Any], watch: Watch,
) -> Result:  # fmt: skip
    """Trains a pretext task on the training split; labels are taken out of its batches by the task itself."""
    began = time.monotonic()
    begin(folder, made_from)
    torch.manual_seed(seed)
    trainer = train(task(), data, how, seed, folder, watch)
    items = len(data.train_dataset)
    facts = {
        "steps": int(trainer.global_step),
        "train_items": items,
        "epochs": round(how.steps * data.batch_size / items, 1),
        "checkpoint": str(last_checkpoint(folder)),
    }
    return keep(folder, Result(dict(made_from), time.monotonic() - began, facts=facts))


def tune(
    checkpoint: Path, mode: str, share: LabelledShare, items: list[int], how: Training, seed: int,
    folder: Path, made_from: Mapping[str, Any], watch: Watch,
) -> Result:  # fmt: skip
    """Fine-tunes on a share of the labels (or trains from random weights), and classifies the test items."""
    began = time.monotonic()
    begin(folder, made_from)
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"mode": mode, **how.settings}
    model = FineTuning(str(checkpoint), classes=share.classes, **settings)
    train(model, share, how, seed, folder, watch)
    right = _right(model, share, items)
    labels = sum(share.counts.values())
    facts = {
        "steps": how.steps,
        "labels": labels,
        "epochs": round(how.steps * share.batch_size / len(share.train_dataset), 1),
        "checkpoint": str(last_checkpoint(folder)),
    }
    return keep(folder, Result(dict(made_from), time.monotonic() - began, {"right": right}, facts))


def _right(model: FineTuning, share: LabelledShare, items: list[int]) -> list[int]:
    """Whether each test item is classified rightly."""
    found = extract(_Logits(model), share.data.test_dataset, items, workers=share.workers)  # type: ignore[arg-type]
    return (found.features.argmax(1) == found.target).int().tolist()


class _Logits:
    """A fine-tuned model as features."""

    def __init__(self, task: FineTuning) -> None:
        self.task = task

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.task(self.task.inputs(batch).to(self.task.device))
        return logits


def features_of(kind: str, checkpoint: Path, seed: int, layer: Layer, most: int) -> Frozen | RawInputs:
    """What a probe reads: of a trained network, the same with random weights, or at `most` so many numbers of
    the raw input."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task = make_backbone(str(checkpoint), None, fresh=kind == "untrained")[0].eval()
    task.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return RawInputs(task, most) if kind == "raw" else Frozen(task, layer.name, layer.pooling)


def probe(
    model: Frozen | RawInputs, share: LabelledShare, items: list[int], most: int, targets: tuple[str, ...],
    folder: Path, made_from: Mapping[str, Any],
) -> Result:  # fmt: skip
    """A linear probe of classes, or a ridge regression of the targets, on frozen features of clean items.

    Of a document the raw input is its counted words, as TF-IDF weighs them; see `counted_words`.
    """
    began = time.monotonic()
    facts: dict[str, Any]
    found: dict[str, list[Any]]
    if isinstance(model, RawInputs) and not targets:
        share.setup("test")
        counted = counted_words(share, {"test": torch.tensor(items)})
        if counted is not None:
            facts = {"labels": len(share.train_dataset), "features": "TF-IDF", "penalty": counted.penalty}
            found = {"right": counted.votes["test"].right.int().tolist()}
            return keep(folder, Result(dict(made_from), time.monotonic() - began, found, facts))
    data: Any = share.data
    places = share.train_dataset.places
    if len(places) > most:
        kept = torch.randperm(len(places), generator=torch.Generator().manual_seed(share.seed))[:most]
        places = places[kept.sort().values.numpy()]
    wanted = targets or ("label",)
    train = extract(model, data.train_dataset, places.tolist(), wanted, workers=share.workers)
    test = extract(model, data.test_dataset, items, wanted, workers=share.workers)
    facts = {"labels": len(places), "features": train.features.shape[1]}
    if targets:
        facts["targets"] = target_names(data.test_dataset[items[0]], wanted, model.task)
        made = regression_probe(train, test, facts["targets"])
        wrong = (made.predicted - test.target).square()
        spread = (test.target - test.target.mean(0)).square()
        found = {"wrong": wrong.tolist(), "spread": spread.tolist()}
        facts |= made.chosen
    else:
        classes = linear_probe(train, test)
        found = {"right": (classes.predicted == test.target).int().tolist()}
        facts |= classes.chosen
    return keep(folder, Result(dict(made_from), time.monotonic() - began, found, facts))


def weights_of(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint.

    Raises:
        UserError: it is missing or damaged.
    """
    read_checkpoint(checkpoint)
    try:
        return sha256_of(checkpoint)
    except OSError as error:
        raise UserError(f"cannot read {checkpoint}: delete its folder, it is trained again") from error
