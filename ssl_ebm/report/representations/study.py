"""All runs of the study, one after another, and the figures that come of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.progress import Display
from ssl_ebm.report.provenance import describe_device
from ssl_ebm.report.representations.figures import figures_of, judge
from ssl_ebm.report.representations.jobs import TRAININGS, Job, TaskStudy
from ssl_ebm.report.representations.page import render
from ssl_ebm.report.representations.plot import plot
from ssl_ebm.report.representations.recipes import Recipe
from ssl_ebm.report.representations.runs import Result, Watch, finished
from ssl_ebm.running.lock import only_run_in
from ssl_ebm.running.provenance import versions
from ssl_ebm.running.quiet import quieten
from ssl_ebm.tasks.memory import keep_freed_memory


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
        UserError: a mistake in data or settings; another process writes to the folder.
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
    with only_run_in(folder), display or Display() as shown:
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
def _said_of(job: Job) -> Iterator[None]:
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
