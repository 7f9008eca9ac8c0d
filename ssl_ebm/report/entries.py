"""What a comparison is made of: two configs, checked against each other before anything is trained."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ssl_ebm.data.loading import StreamData
from ssl_ebm.errors import UserError
from ssl_ebm.report.studies import check_data
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.latent_prediction import LatentPrediction
from ssl_ebm.tasks.secret_settings import without_secrets

MODELS = ("least_squares", "latent_ebm")  # one config for each, in any order
PARAMETER_TOLERANCE = 0.1  # the larger network may have this much more than the smaller
# Settings of the Trainer that decide how much training there is, and what Lightning takes where one is unset.
BUDGET: dict[str, Any] = {
    "max_steps": -1,
    "max_epochs": None,
    "max_time": None,
    "accumulate_grad_batches": 1,
    "limit_train_batches": 1.0,
    "overfit_batches": 0.0,
    "precision": "32-true",
    "devices": "auto",
    "num_nodes": 1,
    "strategy": "auto",
}
# Settings that decide where a run is written and how it is watched, not what is trained.
OF_THE_RUN = ("config", "ckpt_path", "run_dir", "checkpoint_every", "wandb", "weights_only")


@dataclass(frozen=True)
class Entry:
    """One model of a comparison.

    Attributes:
        name: ``least_squares`` or ``latent_ebm``.
        path: its config.
        settings: the config with all defaults filled in, as ``fit`` will save it.
        model: the network, untrained.
        data: its clips or pictures.
        overrides: settings that were given beside the config, as on the command line.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    model: LatentPrediction
    data: StreamData
    overrides: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps of a training."""
        return int(self.settings["trainer"]["max_steps"])

    @property
    def parameters(self) -> int:
        """Parameters, with the prior over z, and those of the network that the objective leaves alone."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def uses_gpu(self) -> bool:
        """Whether ``fit`` will train on a GPU."""
        return torch.cuda.is_available() and self.settings["trainer"]["accelerator"] in (
            "auto",
            "gpu",
            "cuda",
        )


def read_entries(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> dict[str, Entry]:
    """Parses the configs with the parser of ``fit``, builds their models, and checks that they compare.

    ``overrides`` are settings for both, as on the command line: ``["--data.folder", "clips"]``.

    Raises:
        UserError: a config is wrong by itself, or the two differ in what they must share.
        argparse.ArgumentError: a config cannot be parsed.
    """
    entries: dict[str, Entry] = {}
    for path in paths:
        entry = _read(Path(path), tuple(overrides))
        if entry.name in entries:
            raise UserError(
                f"{entries[entry.name].path} and {path} both have objective {entry.name}: give one config "
                f"with least_squares and one with latent_ebm"
            )
        entries[entry.name] = entry
    if missing := [name for name in MODELS if name not in entries]:
        raise UserError(f"no config has objective {missing[0]}: give one with --config")
    entries = {name: entries[name] for name in MODELS}
    check_comparable(*entries.values())
    return entries


def resolved(run: Run) -> dict[str, Any]:
    """All settings of a run as ``fit`` saves them, without those that do not matter for what is trained, and
    without secrets."""
    settings = yaml.safe_load(run._parser(run.subcommand).dump(run.config[run.command]))
    return trained_settings(without_secrets(settings).settings)


def trained_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is trained."""
    return {name: value for name, value in settings.items() if name not in OF_THE_RUN}


def _read(path: Path, overrides: tuple[str, ...]) -> Entry:
    if not path.is_file():
        raise UserError(f"no config at {path}: give the path of a .yaml file")
    try:
        run = Run("fit", ["--config", str(path), *overrides, "--wandb", "off"])
    except argparse.ArgumentError as error:
        error.message = f"{path}: {error.message}"
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    settings = resolved(run)
    task = settings["model"].get("class_path", "an unknown task")
    model, data = run.model, run.datamodule
    if not isinstance(model, LatentPrediction):
        raise UserError(f"{path} trains {task}: compare takes frame prediction and inpainting only")
    if not isinstance(data, StreamData):
        raise UserError(f"{path} has no data of this package: set data.class_path to one of ssl_ebm.data")
    check_data(path, model, data)
    if settings["trainer"].get("max_steps", -1) < 1:
        raise UserError(f"{path} sets no trainer.max_steps: compare needs the number of optimizer steps")
    return Entry(model.objective_name, path, settings, model, data, overrides)


def check_comparable(first: Entry, second: Entry) -> None:
    """Raises UserError for the first difference that would make the comparison unfair."""
    a, b = (dict(_shared(entry.settings)) for entry in (first, second))
    for key in sorted(a.keys() | b.keys()):
        if not key.endswith("workers") and a.get(key) != b.get(key):
            raise UserError(
                f"{key.replace('.init_args.', '.')} is {a.get(key)} in {first.path} and {b.get(key)} in "
                f"{second.path}: both need the same"
            )
    if type(first.model) is not type(second.model):
        raise UserError(f"{first.path} and {second.path} train different tasks: both need the same")
    if (hidden := first.model.hparams.get("mask")) != second.model.hparams.get("mask"):
        raise UserError(f"model.mask is {hidden} in {first.path} and another in {second.path}: set one mask")
    small, large = sorted((first, second), key=lambda entry: entry.parameters)
    if large.parameters > (1 + PARAMETER_TOLERANCE) * small.parameters:
        raise UserError(
            f"{large.path} has {large.parameters:,} parameters and {small.path} {small.parameters:,}, more "
            f"than {PARAMETER_TOLERANCE:.0%} apart: change model.width of one"
        )


def _shared(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that both need, by name: where training begins, how much there is, on what."""
    yield "start_from", settings.get("start_from")
    for key, default in BUDGET.items():
        given = settings["trainer"].get(key)
        yield f"trainer.{key}", default if given is None else given
    yield from _leaves(settings["data"], "data.")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
