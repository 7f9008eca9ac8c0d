"""Fine-tunes a checkpoint with one seed or several, by the real ``fit``, and measures what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.loggers import end_wandb
from ssl_ebm.evaluation.probing.counted_words import Counted, counted_words
from ssl_ebm.evaluation.statistics import (
    Bootstrap,
    Interval,
    grouped_share_interval,
    paired_interval,
    seeds_share_interval,
)
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.report.data_arguments import data_description
from ssl_ebm.report.entries import resolved, trained_settings
from ssl_ebm.running.arguments import read_arguments
from ssl_ebm.running.runs import Run
from ssl_ebm.running.trust import Checked, check_configs, check_description
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.classification import Vote
from ssl_ebm.tasks.saving import last_checkpoint, newest_whole
from ssl_ebm.tasks.secret_settings import shown_description

LOOKS = 5  # validations in a training


@dataclass(frozen=True)
class Budget:
    """How much a model may learn from.

    Attributes:
        steps: optimizer steps, whatever the share of labels.
        share: of the training labels, stratified and nested (see `LabelledShare`).
        per_class: labels of every class instead; None: the share.
    """

    steps: int = 1000
    share: float = 1.0
    per_class: int | None = None


@dataclass(frozen=True)
class Tuned:
    """One fine-tuning; its data is gone.

    Attributes:
        votes: of "val" and "test".
        counted: what TF-IDF finds with the same labels; see `counted_words`.
        record: what finetuning.json says of this seed.
        shared: what it says once: backbone, settings, classes, data.
    """

    votes: dict[str, Vote]
    counted: Counted | None
    record: dict[str, Any]
    shared: dict[str, Any]


def finetune(
    checkpoint: str | Path,
    data: str,
    out: str | Path,
    mode: str = "full",
    budget: Budget | None = None,
    seeds: Sequence[int] = (0,),
    settings: Sequence[str] = (),
) -> str:
    """Trains, and writes out/finetuning.json; the same command goes on where it was broken off.

    The weights of the last step are what is measured, never those of the best validation. Each seed has its
    own labels, order and head, and the folder out/seed_N where there are several.

    Args:
        checkpoint: of a pretext task.
        data: class path of a DataModule, or a YAML file that describes one (or a whole config's data).
        out: folder for checkpoints, settings and figures.
        mode: what learns; see `FineTuning`.
        budget: steps and labels.
        seeds: one or several.
        settings: as on the command line of ``fit``: those of `data` begin with ``--data.``, those of
            `FineTuning` with ``--model.``.

    Returns:
        One line with the accuracy.

    Raises:
        UserError: a mistake in checkpoint, data or settings.
    """
    budget = budget or Budget()
    if budget.steps < 1:
        raise UserError(f"steps is {budget.steps}: use at least 1")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"the seeds are {list(seeds)}: give different ones")
    folder = make_folder(out)
    described_data, checked = _described(data, settings)
    arguments = _arguments(Path(checkpoint), described_data, mode, budget, checked.arguments)
    tuned = []
    for seed in seeds:
        run_dir = folder if len(seeds) == 1 else folder / f"seed_{seed}"
        given = [*arguments, *_of_seed(seed), "--run_dir", str(run_dir)]
        tuned.append(_tune(checked._replace(arguments=given)))
    figures = {split: accuracy([one.votes[split] for one in tuned]) for split in ("val", "test")}
    beside = _beside_counted_words(tuned)
    described = {
        "backbone": str(checkpoint),
        "mode": mode,
        "budget": asdict(budget),
        **tuned[0].shared,
        "accuracy": {split: figure.to_json() for split, figure in figures.items()},
        "accuracy_unit": "share of the items (or clips), with a 95 % interval: Wilson's for one seed, and "
        "where all are right or none is; else a bootstrap over seeds and items (or "
        "recordings of clips, groups of pictures)",
        "tf_idf": beside,
        "runs": [one.record for one in tuned],
    }
    write_whole(folder / "finetuning.json", json.dumps(described, indent=1) + "\n")
    return _line(mode, tuned, figures, beside, folder)


def accuracy(votes: Sequence[Vote]) -> Interval:
    """Share of right items, one vote for each seed over the same items; see finetuning.json."""
    first = votes[0]
    units = first.unit.numpy()
    groups = units if first.group is None else first.group.numpy()
    if len(votes) == 1:
        return grouped_share_interval(first.right.numpy(), groups)
    return seeds_share_interval(_right(votes), groups, Bootstrap(units, recordings=groups))


def gain(ours: Sequence[Vote], theirs: Sequence[Vote]) -> Interval:
    """Accuracy of one model less that of another, with the same seeds on the same items; see
    finetuning.json."""
    if len(ours) == 1:
        a, b = ours[0].right, theirs[0].right
        return paired_interval(int((a & ~b).sum()), int((b & ~a).sum()), len(a))
    bootstrap = Bootstrap(ours[0].unit.numpy())
    return (bootstrap.mean(_right(ours)) - bootstrap.mean(_right(theirs))).interval()


def _right(votes: Sequence[Vote]) -> NDArray[np.float64]:
    """(seeds, items)."""
    return np.stack([vote.right.double().numpy() for vote in votes])


def _beside_counted_words(tuned: Sequence[Tuned]) -> dict[str, Any] | None:
    """What finetuning.json says of TF-IDF with the same labels; None: see `counted_words`."""
    counted = [one.counted.votes for one in tuned if one.counted is not None]
    if len(counted) < len(tuned):
        return None
    splits = ("val", "test")
    theirs = {split: [votes[split] for votes in counted] for split in splits}
    gains = {split: gain([one.votes[split] for one in tuned], theirs[split]) for split in splits}
    return {
        "accuracy": {split: accuracy(theirs[split]).to_json() for split in splits},
        "gain": {split: gains[split].to_json() for split in splits},
        "gain_unit": "accuracy above that of TF-IDF with logistic regression on the same labels and the same "
        "tokens of a document, with a 95 % interval: a paired bootstrap over items, and over seeds "
        "where there are several",
    }


def _described(data: str, settings: Sequence[str]) -> tuple[dict[str, Any], Checked]:
    """The data, and the settings with what may be imported: what a file says is not the user's own word."""
    described, path = data_description(data), Path(data)
    if not path.is_file():
        checked = check_configs(["--data", data, *settings])
        return described, checked._replace(arguments=checked.arguments[2:])
    checked = check_configs(settings)
    if checked.barred is None:
        return described, checked
    barred = check_description(described, path) - checked.own
    return described, checked._replace(barred=checked.barred | barred)


def _arguments(
    checkpoint: Path, data: dict[str, Any], mode: str, budget: Budget, settings: Sequence[str]
) -> list[str]:
    """Of ``fit``."""
    model = {
        "class_path": "ssl_ebm.tasks.FineTuning",
        "init_args": {"backbone_checkpoint": str(checkpoint), "mode": mode},
    }
    share = {"data": data, "share": budget.share, "per_class": budget.per_class}
    whole = {"class_path": "ssl_ebm.data.LabelledShare", "init_args": share}
    trainer = {
        "max_steps": budget.steps,
        "devices": 1,  # this process writes the figures; `fit` trains with many
        "val_check_interval": max(1, budget.steps // LOOKS),
        "check_val_every_n_epoch": "null",
        "num_sanity_val_steps": 0,
        "enable_model_summary": "false",
        "gradient_clip_val": 1.0,
    }
    given = [word for one in read_arguments(settings) for word in (_inside(one.words[0]), *one.words[1:])]
    return [
        *("--model", json.dumps(model), "--data", json.dumps(whole)),
        *(word for name, value in trainer.items() for word in (f"--trainer.{name}", str(value))),
        *given,
    ]


def _inside(name: str) -> str:
    """Settings of the data, as of the data inside of `LabelledShare`."""
    return name.replace("--data.", "--data.data.", 1) if name.startswith("--data.") else name


def _of_seed(seed: int) -> list[str]:
    return ["--seed_everything", str(seed), "--data.seed", str(seed)]


def _tune(checked: Checked) -> Tuned:
    started = time.monotonic()
    run = Run("fit", checked)
    first_step = 0
    if _began(run):
        run = Run("fit", checked._replace(arguments=[*checked.arguments, "--ckpt_path", "last"]))
        first_step = int(read_checkpoint(run.setting("ckpt_path"))["global_step"])
    run.execute()
    trained = time.monotonic()
    run.trainer.validate(run.model, datamodule=run.datamodule, verbose=False)
    run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    measured = time.monotonic()
    end_wandb(run.trainer)  # the next seed has a run of its own
    model: Any = run.model
    data: Any = run.datamodule
    counted = counted_words(data, {split: vote.unit.cpu() for split, vote in model.votes.items()})
    record = {
        "seed": run.setting("seed_everything"),
        "checkpoint": str(last_checkpoint(run.run_dir)),
        "steps": int(run.trainer.global_step),
        "first_step": first_step,  # of this process: above 0, it went on from there
        "labels": data.counts,
        "train_items": len(data.train_dataset),
        "accuracy": {split: accuracy([vote]).to_json() for split, vote in model.votes.items()},
        "items": {split: len(vote.unit) for split, vote in model.votes.items()},
        "confusion_test": model.votes["test"].confusion(len(model.classes)).tolist(),
        "tf_idf": None
        if counted is None
        else {split: accuracy([vote]).to_json() for split, vote in counted.votes.items()}
        | {"penalty": counted.penalty},
        "seconds": {"training": round(trained - started, 1), "evaluation": round(measured - trained, 1)},
    }
    shared = {
        "task": type(model.backbone).__name__,
        "backbone_sha256": model.began_from,
        "classes": model.classes,
        "settings": resolved(run),
        "data": shown_description(data),
    }
    return Tuned(dict(model.votes), counted, record, shared)


def _began(run: Run) -> bool:
    """Whether the folder holds a training with the same settings, from the same weights."""
    try:
        path = newest_whole(run.run_dir)
        saved = yaml.safe_load((run.run_dir / "config.yaml").read_text())
        same = trained_settings(saved) == resolved(run)
    except (OSError, yaml.YAMLError, AttributeError, UserError):
        return False
    model: Any = run.model
    return same and path is not None and read_checkpoint(path).get("began_from") == model.began_from


def _line(
    mode: str,
    tuned: Sequence[Tuned],
    figures: dict[str, Interval],
    beside: dict[str, Any] | None,
    folder: Path,
) -> str:
    labels = sum(tuned[0].record["labels"].values())
    shown = [
        f"{split} {figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}, "
        f"{len(tuned[0].votes[split].unit)} items)"
        for split, figure in figures.items()
    ]
    if beside is not None:
        value, low, high = (100 * float(one) for one in beside["gain"]["test"])
        shown[-1] += f", {value:+.1f} points ({low:+.1f} to {high:+.1f}) over TF-IDF with the same labels"
    seeds = f", {len(tuned)} seeds" if len(tuned) > 1 else ""
    return f"{mode}, {labels} labels{seeds}: accuracy {', '.join(shown)}: {folder / 'finetuning.json'}"
