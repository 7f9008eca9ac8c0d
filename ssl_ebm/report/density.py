"""The report of a density estimation: a page and its numbers, written at the end of `fit` and of `test`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ssl_ebm.data.loading import StreamData, check_least
from ssl_ebm.evaluation.densities import (
    DensityEvaluation,
    check_alike,
    check_names,
    dataset_of,
    evaluate_density,
    items_of,
)
from ssl_ebm.evaluation.density_figures import density_figure, histogram_figure, sheet_figure, way_figure
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.report.document import document
from ssl_ebm.report.provenance import describe_device, steps_behind
from ssl_ebm.report.sections import section
from ssl_ebm.report.tables import cell, table, tiles
from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.density_estimation import DensityEstimation
from ssl_ebm.tasks.secret_settings import shown_description, without_secrets

SHOWN = 16  # samples beside their nearest training items
WELL = 0.9  # AUROC from which a set is told apart well
MEANING = {
    "train": "training items: far below 0.5, the energy has learnt them by heart",
    "samples": "the task's own samples: 0.5 if they are as good as data",
    "uniform": "every entry uniform over the data's range",
    "gaussian": "normal, with the data's mean and covariance",
    "shuffled": "test images with their pixels permuted",
}


class DensityReport(Callback):
    """Measures the energy on the test split; writes ``report.html`` and ``results.json`` into the run folder.

    results.json holds `data`, `energy`, `objective`, `steps`, `device`, `versions`, `seed`, and `split` with
    the figures of `DensityEvaluation.as_dict`. Training is left alone; it is the last epoch that is measured.

    Args:
        against: other data by name, of the same shape, whose items are to have higher energies.
        items: test items of every set, at most.
        samples: chains.
        seed: of all draws.
    """

    def __init__(
        self,
        against: dict[str, StreamData] | None = None,
        items: int = 2000,
        samples: int = 64,
        seed: int = 0,
    ) -> None:
        check_least(items=(items, 2), samples=(samples, 1))
        check_names(against or {})
        self.against = against or {}
        self.items = items
        self.samples = samples
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the training and not after it: whether the other sets are there, and of the same shape."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, DensityEstimation) or not isinstance(data, StreamData):
            return
        [real] = items_of(pl_module, dataset_of(data, "test"), [0])
        for name, one in self.against.items():
            [item] = items_of(pl_module, dataset_of(one, "test"), [0])
            check_alike(name, item, type(data).__name__, real)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module)

    @rank_zero_only
    def _report(self, trainer: Trainer, task: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(task, DensityEstimation) or not isinstance(data, StreamData):
            rank_zero_warn("no report: it needs DensityEstimation, and data of this package")
            return
        device = trainer.strategy.root_device
        task.to(device)  # at the end of `fit` Lightning has moved it to the processor
        found = evaluate_density(task, data, self.against, self.items, self.samples, self.seed)
        results = {
            "data": shown_description(data),
            "energy": type(task.energy).__name__,
            "objective": task.objective_name,
            "parameters": sum(p.numel() for p in task.energy.parameters()),
            "steps": steps_behind(trainer),
            "device": describe_device(device),
            "versions": versions(),
            "seed": self.seed,
            "split": "test",
            **found.as_dict(),
        }
        folder = make_folder(trainer.default_root_dir)
        write_whole(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_whole(folder / "report.html", render(task, found, results))
        rank_zero_info(f"report: {Path(folder) / 'report.html'}")


def headline(found: DensityEvaluation) -> str:
    """What came of it, in a sentence."""
    others = {name: one for name, one in found.auroc.items() if name not in ("train", "samples")}
    worst = min(others, key=lambda name: others[name].value)
    lowest, best = others[worst], max(one.value for one in others.values())
    well = sum(one.low >= WELL for one in others.values())
    if lowest.low <= 0.5:
        what = "takes {} for more likely than data" if lowest.high < 0.5 else "does not tell data from {}"
        return (
            f"This energy {what.format(worst)}: AUROC {lowest.value:.2f}. It tells data from {well} of "
            f"{len(others)} kinds well (AUROC of {WELL:g} or more)."
        )
    return (
        f"Unseen data has a lower energy than what is none: AUROC {lowest.value:.2f} ({worst}) to "
        f"{best:.2f}, over {len(others)} kinds."
    )


def render(task: DensityEstimation, found: DensityEvaluation, results: Mapping[str, Any]) -> str:
    """The whole page, which needs nothing else."""
    sections = [_samples(task, found), _energies(found), _caveats(task, found), _setup(task, results)]
    facts = [(f"{one.value:.2f}", f"AUROC against {name}") for name, one in found.auroc.items()]
    if found.nats_above_truth is not None:
        gap = found.nats_above_truth
        facts.insert(0, (f"{gap.value:.3f}", f"nats from the true density ({gap.low:.3f} to {gap.high:.3f})"))
    title = f"{results['energy']} by {results['objective']}"
    body = f"""<h1>{escape(headline(found))}</h1>
<p class="lead">{escape(title)}, {results["steps"]:,} steps, on {escape(str(results["data"]["name"]))}.</p>
{tiles(facts)}
{"".join(sections)}
<p class="soft">All figures are in results.json beside this page.</p>"""
    return document(title, body)


def _samples(task: DensityEstimation, found: DensityEvaluation) -> str:
    figure = density_figure(task, found.real, found.samples)
    figures = "" if figure is None else figure.html()
    rows = []
    if found.samples is not None and found.nearest is not None:
        if found.real.ndim == 4 and figure is not None:
            pairs = {
                "samples": found.samples.state[:SHOWN].cpu(),
                "nearest training images": found.nearest[:SHOWN],
            }
            figures += sheet_figure(pairs, "Samples, and the training image that is nearest to each.").html()
            figures += way_figure(found.samples).html()
        rows = [(name, [cell(one.to_json(), 4)]) for name, one in found.distance.items()]
        rows.append(("samples nearer than 99 % of the test items, share", [f"{found.copies:.2f}"]))
    read = (
        "Chains begin as noise and follow the energy down. Distances are to the nearest of all training "
        "items. By chance 0.01 of the samples are nearer than 99 % of the test items are; more are copies."
    )
    distances = table(["root mean squared distance to the nearest training item", "per entry"], rows)
    return section("Samples", figures + distances, read)


def _energies(found: DensityEvaluation) -> str:
    rows = [
        (
            name,
            [cell(one.to_json()), f"{len(found.energies[name]):,}", escape(MEANING.get(name, "another set"))],
        )
        for name, one in found.auroc.items()
    ]
    numbers = table(["test items against", "AUROC", "items", "what that is"], rows)
    read = (
        "AUROC is the chance that a test item has a lower energy than an item of the other set: 0.5 is no "
        "better than a coin, 1 is always. Brackets are 95 % intervals over items."
    )
    return section("Energies", histogram_figure(found.energies).html() + numbers, read)


def _caveats(task: DensityEstimation, found: DensityEvaluation) -> str:
    """What the numbers do not say."""
    notes = ["One training with one seed: the intervals are those of the test items alone."]
    noise = getattr(task.sampler, "noise", 1.0)
    cold = callable(noise) or noise < 1
    if cold:
        share = "a changing share" if callable(noise) else f"{noise:g}"
        notes.append(
            f"Chains add {share} of the noise that their step size calls for, so they are no draws from "
            "exp(-F) but from something colder, and no average over them is one of the model. Energies of "
            "samples below those of data are to be expected then."
        )
    if getattr(task.sampler, "max_gradient", None) is not None:
        notes.append(
            "Gradients are cut, which keeps chains from running away, and changes where they come to rest."
        )
    for name, one in found.auroc.items():
        if name == "train" and one.high < 0.45:
            notes.append("Training items have lower energies than test items: learnt by heart.")
        elif name == "samples" and one.high < 0.5 and not cold:
            notes.append("Samples have lower energies than data: in wells that training has not filled.")
        elif name not in ("train", "samples") and one.high < 0.5:
            notes.append(f"{name} is rated more likely than data. This energy is no detector of it.")
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h2>What to keep in mind</h2><ul>{items}</ul></section>\n"


def _setup(task: DensityEstimation, results: Mapping[str, Any]) -> str:
    about = [
        ("parameters", f"{results['parameters']:,}"),
        ("device", results["device"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in results["versions"].items())),
    ]
    facts = table(["", "this run"], [(name, [escape(text)]) for name, text in about])
    settings = escape(yaml.safe_dump(without_secrets(dict(task.hparams)).settings, sort_keys=False))
    data = escape(yaml.safe_dump(dict(results["data"]), sort_keys=False, allow_unicode=True))
    folded = (
        f"<details><summary>Settings of the task</summary><pre>{settings}</pre></details>"
        f"<details><summary>The data</summary><pre>{data}</pre></details>"
    )
    return f"<section><h2>How it was made</h2>{facts}{folded}</section>\n"
