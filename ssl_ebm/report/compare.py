"""``ssl-ebm compare``: least squares and a latent-variable EBM on the same data, budget and seeds."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.progress import Display
from ssl_ebm.report.assessment import Protocol
from ssl_ebm.report.bars import judge
from ssl_ebm.report.entries import Entry, read_entries
from ssl_ebm.report.provenance import describe_device
from ssl_ebm.report.studies import Measured, study_of
from ssl_ebm.report.training import Training, train
from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.checkpoints import load_task
from ssl_ebm.tasks.secret_settings import shown_description


def compare(
    configs: Sequence[str | Path],
    out: str | Path,
    seeds: Sequence[int] = (0,),
    protocol: Protocol | None = None,
    overrides: Sequence[str] = (),
    display: Display | None = None,
) -> dict[str, Any]:
    """Trains both models with every seed, measures them on the test split, and writes the report.

    ``out`` then holds ``report.html``, ``results.json`` and, for each model and seed, the folder of a run of
    ``fit``: ``out/<model>/seed<k>/`` with checkpoint, settings and logs. Trainings that are there already,
    with the same settings, are used again, so that the same command goes on after an interruption.

    Args:
        configs: two, one with each objective.
        seeds: of the trainings. The data is the same for all: its seed is a setting of the data.
        protocol: how the models are measured.
        overrides: settings for both configs, as on the command line: ``["--trainer.max_steps", "500"]``.

    Returns:
        What ``results.json`` holds: ``data``, ``seeds``, ``device``, ``seconds`` (of this command in all),
        ``seconds_by_phase``, ``models``, ``controls``, ``bounds``, ``differences``, ``uncertain_by``,
        ``rollouts``, ``bars``, ``protocol``, ``configs``, ``versions``. Blocks of figures are those of
        :func:`ssl_ebm.evaluation.summary.summarise`; a figure is ``[value, low, high]`` with a 95 % interval,
        or null where it does not exist.

    Raises:
        UserError: configs that are wrong or do not compare, or a training that failed.
    """
    began = time.monotonic()
    protocol = protocol or Protocol()
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {seeds}: give each number once")
    entries = read_entries(configs, overrides)
    study = study_of(entries["latent_ebm"].model)
    folder = make_folder(out)

    data = entries["latent_ebm"].data
    device = torch.device("cuda" if entries["latent_ebm"].uses_gpu else "cpu")
    trainings = [
        Training(entry, seed, folder / name / f"seed{seed}")
        for name, entry in entries.items()
        for seed in seeds
    ]
    with display or Display() as shown:
        done = [training.name for training in trainings if training.finished]
        if done:
            shown.say(f"already trained: {', '.join(done)}")
        data.setup()  # all splits: a clip that cannot be read is found before the training
        description = shown_description(data) or {}
        data.train_dataset = None  # the trainings read it for themselves
        untrained = {name: entry.model for name, entry in entries.items()}
        evaluating, rolling = study.rehearse(untrained, data, protocol, len(seeds))
        rehearsed = time.monotonic()
        train(trainings, shown, evaluating + rolling)
        trained = time.monotonic()
        models = {
            name: [load_task(t.checkpoint, study.task) for t in trainings if t.entry.name == name]
            for name in entries
        }
        found = study.measure(models, data, protocol, seeds, device, _Watch(shown, rolling, study.unit))
    measured = time.monotonic()
    phases = {
        "checks": rehearsed - began,
        "training": trained - rehearsed,
        "evaluation": measured - trained,
    }
    results = collect(entries, trainings, found, seeds, device, protocol, phases, description)
    write_whole(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_whole(folder / "report.html", found.page(results))
    shown.say(f"report: {folder / 'report.html'}")
    return results


class _Watch:
    """Shows how far measuring is. ``rolling`` are the seconds that roll-outs will take."""

    def __init__(self, display: Display, rolling: float, unit: str) -> None:
        self.display, self.rolling, self.unit = display, rolling, unit
        self.began = time.monotonic()

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        left = (now - self.began) * (total - done) / done
        if phase == "evaluation":
            left += self.rolling
        if done == total:
            self.began = now
        self.display.show(phase, done, total, self.unit, left)


def collect(
    entries: dict[str, Entry],
    trainings: Sequence[Training],
    found: Measured,
    seeds: list[int],
    device: torch.device,
    protocol: Protocol,
    phases: dict[str, float],
    description: dict[str, Any],
) -> dict[str, Any]:
    """The content of ``results.json``."""
    figures = found.figures
    models: dict[str, Any] = {}
    for name, entry in entries.items():
        records = {str(t.seed): t.record for t in trainings if t.entry.name == name}
        speeds = [record["steps_per_second"] for record in records.values() if record["steps_per_second"]]
        models[name] = {
            "parameters": entry.parameters,
            "steps": entry.steps,
            "steps_per_second": sum(speeds) / len(speeds) if speeds else None,
            "trainings": records,
            **figures["models"][name],
        }
    results = {
        "task": type(entries["latent_ebm"].model).__name__,
        "data": {**description, "evaluated": found.evaluated},
        "seeds": seeds,
        "device": describe_device(device),
        "seconds": sum(phases.values()),
        "seconds_by_phase": phases,
        "models": models,
        "controls": {name: blocks for name, blocks in figures["models"].items() if name not in entries},
        "bounds": figures["bounds"],
        "differences": figures["differences"],
        "uncertain_by": figures["uncertain_by"],
        "rollouts": found.rollouts,
        "protocol": {
            **vars(protocol),
            **found.protocol,
        },
        "configs": {name: {"file": str(e.path), "settings": e.settings} for name, e in entries.items()},
        "versions": versions(),
    }
    results["bars"] = judge(results)
    return results
