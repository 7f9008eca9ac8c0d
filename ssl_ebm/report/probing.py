"""``ssl-ebm probe``: what frozen features say about labels, beside what needs no training."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from ssl_ebm.data.loading import check_least
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.probing.attentive import attentive_probe
from ssl_ebm.evaluation.probing.features import RawInputs, chosen_items, extract, ready, target_names
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.probes import knn_probe, linear_probe, regression_probe
from ssl_ebm.evaluation.probing.results import Classified, Samples
from ssl_ebm.evaluation.probing.spread import rank_me
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.progress import Display
from ssl_ebm.report.data_arguments import make_data
from ssl_ebm.report.probing_page import Seen, render
from ssl_ebm.report.provenance import describe_device
from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.backbones import make_backbone
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.features import Pooling
from ssl_ebm.tasks.fine_tuning import FineTuning
from ssl_ebm.tasks.secret_settings import shown_description

KINDS = ("linear", "knn", "attentive", "regression")
MAPPED = 2000  # test items on the map of the features
RANKED = 2048  # training items whose effective rank is taken


@dataclass(frozen=True)
class Plan:
    """What is probed, and how.

    Attributes:
        kinds: of probes, of `KINDS`.
        layer, pooling: of the features; see `Frozen`. "attentive" needs a layer.
        split: "val" or "test"; settings are to be chosen on the former.
        targets: of a regression, entries of a batch.
        train_items, test_items: how many are drawn at most.
        baselines: also probe the same network with random weights, and raw inputs.
        seed: of the draws, and of the random weights.
    """

    kinds: Sequence[str] = ("linear", "knn")
    layer: str | None = None
    pooling: Pooling = "mean"
    split: str = "test"
    targets: Sequence[str] = ("position", "velocity")
    train_items: int = 10_000
    test_items: int = 10_000
    baselines: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(train_items=(self.train_items, 2), test_items=(self.test_items, 1))
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise UserError(f"no probe {unknown[0]!r}: use {', '.join(KINDS)}")
        if "attentive" in self.kinds and self.layer is None:
            raise UserError("attentive reads a layer's tokens: give --layer")
        if self.split not in ("val", "test"):
            raise UserError(f"split is {self.split!r}: use val or test")


def probe(
    checkpoint: str | Path, data: str, out: str | Path, plan: Plan | None = None, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Probes a checkpoint, and writes out/probe.json and out/probe.html.

    Args:
        checkpoint: of a pretext task, or of a fine-tuning.
        data: labelled data: the class path of a DataModule, or a YAML file that describes one.
        out: folder.
        plan: what is probed.
        settings: of the data, as on the command line: ``--data.folder DIR``.

    Returns:
        What probe.json holds: for each of trained, untrained and raw the figures of each probe.

    Raises:
        UserError: a checkpoint, layer or data that cannot be probed.
    """
    plan, began = plan or Plan(), time.monotonic()
    folder = make_folder(out)
    task = load_any(checkpoint)
    task.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    found = ready(make_data(data, settings), task)
    models = dict(_models(checkpoint, task, plan))
    results: dict[str, dict[str, Any]] = {name: {} for name in models}
    seen: Seen | None = None
    work = [(name, kind) for name in models for kind in plan.kinds if _applies(name, kind)]
    with Display(seconds=0) as display:
        for done, (name, kind) in enumerate(work):
            left = (time.monotonic() - began) / done * (len(work) - done) if done else None
            display.show("probe", done, len(work), "probes", left, f"now {kind} of {name}")
            train, test, names = _samples(models[name], kind, found, plan)
            made = _fit(kind, train, test, names, plan)
            results[name][kind] = made.to_json()
            if "rank_me" not in results[name]:  # items may be in the order of their classes
                ranked = chosen_items(range(len(train)), RANKED, plan.seed)
                results[name]["rank_me"] = rank_me(train.pooled()[ranked])
            if name == "trained" and isinstance(made, Classified) and seen is None:
                mapped = chosen_items(range(len(test)), MAPPED, plan.seed)
                seen = Seen(test.pooled()[mapped], test.target[mapped], made.confusion)
    described = {
        "checkpoint": str(checkpoint),
        "task": type(task).__name__,
        "layer": plan.layer,
        "pooling": plan.pooling,
        "split": plan.split,
        "seed": plan.seed,
        "data": shown_description(found),
        "classes": list(getattr(found, "classes", [])),
        "models": results,
        "seconds": round(time.monotonic() - began, 1),
        "device": describe_device(task.device),
        "versions": versions(),
    }
    write_whole(folder / "probe.json", json.dumps(described, indent=1) + "\n")
    write_whole(folder / "probe.html", render(described, seen))
    return described


def load_any(checkpoint: str | Path) -> LightningModule:
    """The task of a checkpoint, whichever it is, in evaluation mode.

    Raises:
        UserError: no checkpoint, or one of a task that represents nothing.
    """
    import ssl_ebm.tasks

    name = str(read_checkpoint(checkpoint).get("task", "an unknown task"))
    kind = getattr(ssl_ebm.tasks, name, None) if name in ssl_ebm.tasks.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, LightningModule):
        raise UserError(
            f"{checkpoint} is a checkpoint of {name}, which is no task of this package: probe your own while "
            "it is trained, by a callback such as ssl_ebm.evaluation.LinearProbe"
        )
    return load_task(checkpoint, kind)


def _models(checkpoint: str | Path, task: LightningModule, plan: Plan) -> Iterator[tuple[str, Any]]:
    """What features are taken of, by name."""
    yield "trained", Frozen(task, plan.layer, plan.pooling)
    if not plan.baselines or isinstance(task, FineTuning):
        return
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        fresh = make_backbone(str(checkpoint), None, fresh=True)[0]
    yield "untrained", Frozen(fresh.to(task.device), plan.layer, plan.pooling)
    yield "raw", RawInputs(task)


def _applies(name: str, kind: str) -> bool:
    return kind != "attentive" or name != "raw"  # which has no layers


def _samples(model: Any, kind: str, data: Any, plan: Plan) -> tuple[Samples, Samples, list[str]]:
    targets = tuple(plan.targets) if kind == "regression" else ("label",)
    if kind == "attentive":
        model = Frozen(model.task, plan.layer, "none")
    sets, names = [], []
    for split, count in (("train", plan.train_items), (plan.split, plan.test_items)):
        dataset = getattr(data, f"{split}_dataset")
        items = chosen_items(dataset, count, plan.seed)
        names = target_names(load_items(dataset, items[:1])[0], targets, model.task)
        sets.append(extract(model, dataset, items, targets, workers=data.workers))
    return sets[0], sets[1], names


def _fit(kind: str, train: Samples, test: Samples, names: list[str], plan: Plan) -> Any:
    if kind == "linear":
        return linear_probe(train, test)
    if kind == "knn":
        return knn_probe(train, test)
    if kind == "attentive":
        return attentive_probe(train, test, seed=plan.seed)
    return regression_probe(train, test, names)
