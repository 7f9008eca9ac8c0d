"""The list of runs for each task, done one after another, and the figures that come of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.text import LabelledDocuments
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing.features import chosen_items
from ssl_ebm.evaluation.provenance import versions
from ssl_ebm.evaluation.runs import quieten
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.report.progress import Display
from ssl_ebm.report.provenance import describe_device
from ssl_ebm.report.representations.figures import figures_of, judge
from ssl_ebm.report.representations.page import render
from ssl_ebm.report.representations.plot import plot
from ssl_ebm.report.representations.recipes import Recipe
from ssl_ebm.report.representations.runs import (
    Result,
    Watch,
    features_of,
    finished,
    pretrain,
    probe,
    tune,
    weights_of,
)
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.memory import keep_freed_memory
from ssl_ebm.tasks.saving import last_checkpoint

ORDER = ("raw", "untrained")  # rows that need no pre-training, before the pretexts
SCRATCH = "scratch"
TRAININGS = ("pretrain", "tune")  # stages whose work is counted in steps


@dataclass(frozen=True)
class Job:
    """A run of the study.

    Attributes:
        task, stage, row, share, seed: which; stages are pretrain, probe, regress and tune.
        size: of the work, in optimizer steps, or 1.
        made_from: what its result depends on; asked when those before it are done.
        do: makes the result.
    """

    task: str
    stage: str
    row: str
    share: float | None
    seed: int
    size: int
    folder: Path
    made_from: Callable[[], dict[str, Any]]
    do: Callable[[Watch], Result]

    @property
    def name(self) -> str:
        """For a person."""
        labels = "" if self.share is None else f", {self.share:.0%} of the labels"
        return f"{self.stage} {self.row}{labels}, seed {self.seed}"


class TaskStudy:
    """All runs of one recipe. Data is made when a run first needs it, and once.

    Args:
        recipe: what to do.
        seeds: of weights, labels and order.
        folder: of this task.
    """

    def __init__(self, recipe: Recipe, seeds: Sequence[int], folder: Path) -> None:
        self.recipe, self.seeds, self.folder = recipe, list(seeds), folder
        self._data: Any = None
        self._labelled: Any = None
        self._shares: dict[tuple[float, int], LabelledShare] = {}

    # -- data --------------------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """What pretexts are trained on."""
        if self._data is None:
            self._data = build(self.recipe.data, LightningDataModule, "data")
            self._data.setup("fit")
        return self._data

    @property
    def labelled(self) -> Any:
        """The items with labels, all splits."""
        if self._labelled is None:
            made: Any = build(self.recipe.labelled, LightningDataModule, "data")
            if isinstance(made, LabelledDocuments):
                self.data.prepare_data()
                made.use_tokenizer(self.data.tokenizer_json, self.data.length)
            made.setup()
            self._labelled = made
        return self._labelled

    def share(self, share: float, seed: int) -> LabelledShare:
        """So many of the training labels."""
        if (share, seed) not in self._shares:
            made = LabelledShare(self.labelled, share, seed=seed)
            made.setup("fit")
            self._shares[share, seed] = made
        return self._shares[share, seed]

    @property
    def tested(self) -> list[int]:
        """Test items, the same for all."""
        return chosen_items(self.labelled.test_dataset, self.recipe.tested, seed=0)

    # -- runs --------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[str]:
        """Of the table."""
        return [*ORDER, *self.recipe.pretexts, SCRATCH]

    def checkpoint(self, pretext: str, seed: int) -> Path:
        return last_checkpoint(self.folder / "pretrain" / pretext / f"seed_{seed}")

    def jobs(self) -> list[Job]:
        """What is to be done, in an order in which everything is there when it is needed."""
        recipe, found = self.recipe, []
        for seed in self.seeds:
            found += [self._pretrain(pretext, seed) for pretext in recipe.pretexts]
            for row in (*ORDER, *recipe.pretexts):
                found += [self._probe(row, share, seed, ()) for share in recipe.shares]
                if recipe.targets:
                    found.append(self._probe(row, recipe.shares[-1], seed, recipe.targets))
            for row in (*recipe.pretexts, SCRATCH):
                found += [self._tune(row, place, seed) for place in range(len(recipe.shares))]
        return found

    def _pretrain(self, pretext: str, seed: int) -> Job:
        recipe, folder = self.recipe, self.folder / "pretrain" / pretext / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            described = {"task": recipe.pretexts[pretext], "data": recipe.data, "seed": seed}
            return described | {"how": asdict(recipe.pretraining)}

        def do(watch: Watch) -> Result:
            def task() -> LightningModule:
                return build(recipe.pretexts[pretext], LightningModule, "model")

            return pretrain(task, self.data, recipe.pretraining, seed, folder, made_from(), watch)

        steps = recipe.pretraining.steps
        return Job(recipe.name, "pretrain", pretext, None, seed, steps, folder, made_from, do)

    def _began_from(self, row: str, seed: int) -> dict[str, Any]:
        """A pre-trained network by its weights, another one by its settings."""
        pretext = row if row in self.recipe.pretexts else next(iter(self.recipe.pretexts))
        described = {"task": self.recipe.pretexts[pretext], "labelled": self.recipe.labelled, "seed": seed}
        if row in self.recipe.pretexts:
            described["weights"] = weights_of(self.checkpoint(row, seed))
        return described

    def _source(self, row: str, seed: int) -> Path:
        """A checkpoint of the row's network; of one that is not trained the settings alone are used."""
        return self.checkpoint(row if row in self.recipe.pretexts else next(iter(self.recipe.pretexts)), seed)

    def _probe(self, row: str, share: float, seed: int, targets: tuple[str, ...]) -> Job:
        recipe, stage = self.recipe, "regress" if targets else "probe"
        folder = self.folder / stage / row / f"labels_{share:g}" / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            reads = {"raw": recipe.raw} if row == "raw" else {"layer": asdict(recipe.layer)}
            how = {**reads, "share": share, "targets": list(targets)}
            return self._began_from(row, seed) | how | {"items": [recipe.probed, recipe.tested]}

        def do(watch: Watch) -> Result:
            model = features_of(row, self._source(row, seed), seed, recipe.layer, recipe.raw)
            found = self.share(share, seed)
            return probe(model, found, self.tested, recipe.probed, targets, folder, made_from())

        return Job(recipe.name, stage, row, share, seed, 1, folder, made_from, do)

    def _tune(self, row: str, place: int, seed: int) -> Job:
        recipe, share = self.recipe, self.recipe.shares[place]
        how = (recipe.scratch if row == SCRATCH else recipe.tuned)[place]
        folder = self.folder / "tune" / row / f"labels_{share:g}" / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            return self._began_from(row, seed) | {"how": asdict(how), "share": share, "items": recipe.tested}

        def do(watch: Watch) -> Result:
            mode = "scratch" if row == SCRATCH else "full"
            found, source = self.share(share, seed), self._source(row, seed)
            return tune(source, mode, found, self.tested, how, seed, folder, made_from(), watch)

        return Job(recipe.name, "tune", row, share, seed, how.steps, folder, made_from, do)


class _TimeLeft:
    """Seconds until all is done, from what runs of the same kind took."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = list(jobs)
        self.paces: dict[tuple[str, str, str], list[tuple[float, float]]] = {}

    @staticmethod
    def kind(job: Job) -> tuple[str, str, str]:
        return job.task, job.stage, job.row if job.stage == "pretrain" else ""

    def done(self, job: Job, seconds: float) -> None:
        self.waiting.remove(job)
        self.paces.setdefault(self.kind(job), []).append((seconds, job.size))

    def __call__(self) -> float | None:
        """None while nothing of some sort has been seen: a training, or a probe."""
        total = 0.0
        for job in self.waiting:
            alike = self.paces.get(self.kind(job)) or [
                pace
                for kind, paces in self.paces.items()
                if (kind[1] in TRAININGS) == (job.stage in TRAININGS)
                for pace in paces
            ]
            if not alike:
                return None
            total += job.size * sum(seconds for seconds, _ in alike) / sum(size for _, size in alike)
        return total


def representations(
    recipes: Sequence[Recipe], out: str | Path, seeds: Sequence[int] = (0, 1, 2),
    display: Display | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Pre-trains, probes and fine-tunes; writes out/representations.json, .html and .svg.

    Every run has a folder below out/<task>/. One that is there, made from the same, is read; so the same
    command goes on where it was broken off. The files are written anew after each task.

    Args:
        recipes: one for each task.
        out: folder.
        seeds: each has its own pre-training, labels, order and head.

    Returns:
        What representations.json holds: for each task the figures of each row as [value, low, high], with
        95 % intervals over seeds and test items; `bars`: what was expected and whether it holds.

    Raises:
        UserError: a mistake in data or settings.
    """
    seeds = list(seeds)
    if not recipes or len({one.name for one in recipes}) < len(recipes):
        raise UserError("representations: give at least one task, and each once")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds are {seeds}: give each number once")
    began, folder = time.monotonic(), make_folder(out)
    quieten()
    keep_freed_memory()
    studies = [TaskStudy(recipe, seeds, folder / recipe.name) for recipe in recipes]
    jobs = [job for study in studies for job in study.jobs()]
    left, total = _TimeLeft(jobs), sum(job.size for job in jobs)
    described: dict[str, Any] = {"seeds": seeds, "tasks": {}}
    done = 0
    with display or Display() as shown:
        for study in studies:
            results: dict[tuple[str, str, float | None, int], Result] = {}
            for job in (one for one in jobs if one.task == study.recipe.name):

                def watch(part: float, job: Job = job, done: int = done) -> None:
                    at = done + int(part * job.size)
                    shown.show(job.task, at, total, "steps", left(), job.name)

                watch(0.0)
                found = finished(job.folder, job.made_from()) or _made(job, watch)
                results[job.stage, job.row, job.share, job.seed] = found
                left.done(job, found.seconds)
                done += job.size
            described["tasks"][study.recipe.name] = figures_of(study.recipe, seeds, results)
            described |= _about(described, time.monotonic() - began)
            write_whole(folder / "representations.json", json.dumps(described, indent=1) + "\n")
            write_whole(folder / "representations.html", render(described))
            write_whole(folder / "representations.svg", plot(described))
            shown.say(f"{study.recipe.name}: {folder / 'representations.html'}")
    return described


def _made(job: Job, watch: Watch) -> Result:
    with _said_of(job):
        return job.do(watch)


@contextmanager
def _said_of(job: Job) -> Any:
    """An error of a run says of which."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{job.task}, {job.name}: {error}") from error


def _about(described: dict[str, Any], seconds: float) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "bars": judge(described),
        "seconds_of_this_command": round(seconds, 1),
        "seconds_of_all_runs": round(sum(one["seconds"] for one in described["tasks"].values()), 1),
        "device": describe_device(device),
        "versions": versions(),
        "interval": "95 %, bootstrap over test items and seeds",
    }
