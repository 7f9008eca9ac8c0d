"""The command ``fit`` on one process and on two of one machine: items per second, and time to a first step.

Every process has one thread. Two that train together (DistributedDataParallel, gloo) are compared with twice
one, which is the ideal, and with two that train apart at the same time: what these lose is the machine's
(cores share memory bandwidth and clock), the rest is the price of agreeing on a gradient.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ssl_ebm.errors import UserError
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Rates, median_interval
from ssl_ebm.running.launching import environment_of_one

WARM_UP_STEPS = 3
VARIABLE = "SSL_EBM_CLOCK"  # names the folder in which trainings write down their times
TOGETHER, APART, ONE = "2 processes", "2 processes apart", "1 process"
IDEAL, UNCONNECTED = "twice one process", "two that train apart"
PATIENCE = 600  # seconds for a training


@dataclass(frozen=True)
class Training:
    """A training that is measured.

    Attributes:
        name: for the case.
        unit: of an item.
        items: of one process in a step.
        steps: that are timed.
        settings: of ``fit``.
    """

    name: str
    unit: str
    items: int
    steps: int
    settings: dict[str, Any] = field(repr=False)


def described(path: str, **arguments: Any) -> dict[str, Any]:
    """An object of this package, as a config describes it."""
    return {"class_path": f"ssl_ebm.{path}", "init_args": arguments}


def masked_autoencoder(items: int = 64, steps: int = 30, **sizes: Any) -> Training:
    """The network of configs/inpainting/pictures_mae.yaml on digits, which need no file."""
    sizes = {"size": 32, "patch": 4, "channels": 1, **sizes}
    network = described("networks.patch_completion.PatchCompletion", normalised=True, **sizes)
    mask = described("data.masks.RandomPatches", ratio=0.75, patch=4)
    return Training(
        "masked autoencoder, 32x32, width 192, 6 + 2 layers", "images", items, steps,
        {
            "model": described("tasks.Inpainting", objective="least_squares", network=network, mask=mask),
            "data": described("data.FontDigits", size=32, batch_size=items),
        },
    )  # fmt: skip


def frame_prediction(items: int = 32, steps: int = 60, **sizes: Any) -> Training:
    """The recipe of configs/frame_prediction/quickstart_latent_ebm.yaml."""
    sizes = {"codes": 49, "width": 32, **sizes}
    return Training(
        "frame prediction, 32x32, latent_ebm, 49 codes", "clips", items, steps,
        {
            "model": described("tasks.FramePrediction", objective="latent_ebm", radius=3, **sizes),
            "data": described("data.MovingDigits", batch_size=items),
        },
    )  # fmt: skip


class Clock(Callback):
    """Writes down when each optimizer step ended: seconds of `time.time`, which all processes share.

    Trainings that are measured at one time wait for each other where the warm-up ends.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if len(self.ends) == WARM_UP_STEPS - 1:
            wait_for_all(Path(os.environ[VARIABLE]))
        self.ends.append(time.time())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            path = Path(os.environ[VARIABLE]) / f"{os.getpid()}.json"
            path.write_text(json.dumps(self.ends))


def wait_for_all(folder: Path) -> None:
    """Returns when as many processes have called it as the name of the folder says."""
    (folder / f"{os.getpid()}.ready").touch()
    expected, until = int(folder.name), time.monotonic() + PATIENCE
    while len(list(folder.glob("*.ready"))) < expected and time.monotonic() < until:
        time.sleep(0.002)


@dataclass(frozen=True)
class Times:
    """What was seen of trainings that ran at one time.

    Attributes:
        begun: when they were started.
        ends: when the steps of each ended.
    """

    begun: float
    ends: Sequence[Sequence[float]]

    @property
    def first(self) -> float:
        """Seconds from the start of the process to the end of its first optimizer step; the median."""
        return median(one[0] - self.begun for one in self.ends)

    @property
    def steps_per_second(self) -> float:
        """Of all together, after the warm-up, while all of them train.

        Raises:
            UserError: one took no step in that time.
        """
        begin = max(one[WARM_UP_STEPS - 1] for one in self.ends)
        end = min(one[-1] for one in self.ends)
        seen = [[at for at in one if begin <= at <= end] for one in self.ends]
        if min(map(len, seen)) < 2:
            raise UserError("trainings that were to run at one time did not: let them take more steps")
        return sum((len(one) - 1) / (one[-1] - one[0]) for one in seen)


def run_trainings(training: Training, processes: int, trainings: int = 1) -> Times:
    """Trains, by the command, each training with so many processes, all trainings at one time.

    Raises:
        UserError: a training failed.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / str(processes * trainings)
        place.mkdir()
        config = Path(name) / "config.yaml"
        config.write_text(json.dumps(training.settings))  # JSON is YAML
        environment = {**environment_of_one(), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment[VARIABLE] = str(place)
        launch = ["-m", "ssl_ebm.cli"]
        if processes > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            launch += ["--module", "ssl_ebm.cli"]
        steps = WARM_UP_STEPS + training.steps
        command = [sys.executable, *launch, "fit", "--config", str(config)]
        command += [f"--trainer.callbacks+={__name__}.Clock", "--trainer.max_steps", str(steps)]
        command += ["--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0"]
        command += ["--trainer.enable_model_summary", "false"]
        begun = time.time()
        started = []
        for number in range(trainings):
            with (Path(name) / f"{number}.log").open("w") as log:
                run_dir = ["--run_dir", str(Path(name) / f"run{number}")]
                started.append(
                    subprocess.Popen([*command, *run_dir], env=environment, stdout=log, stderr=log)
                )
        try:
            failed = [number for number, one in enumerate(started) if one.wait(PATIENCE)]
        finally:
            for one in started:
                one.kill()
                one.wait()
        if failed:
            lines = (Path(name) / f"{failed[0]}.log").read_text().strip().splitlines()
            raise UserError(f"a training of {training.name} failed: {lines[-1] if lines else 'no output'}")
        found = [json.loads(path.read_text()) for path in place.glob("*.json")]
    return Times(begun, found)


def process_rows(suite: str, training: Training, turns: int) -> Iterator[Row]:
    """Items per second of one process, of two together and of two apart; and seconds to the first step."""
    plans = {ONE: (1, 1), APART: (1, 2), TOGETHER: (2, 1)}
    rates: dict[str, list[float]] = {name: [] for name in plans}
    first: dict[str, list[float]] = {name: [] for name in plans}
    for turn in range(turns):
        for name in list(plans) if turn % 2 == 0 else reversed(list(plans)):
            processes, trainings = plans[name]
            times = run_trainings(training, processes, trainings)
            rates[name].append(times.steps_per_second * processes * training.items)
            first[name].append(times.first)
    unit = f"{training.unit}/s"
    ideal = {IDEAL: [2 * rate for rate in rates[ONE]], UNCONNECTED: rates[APART]}
    found = Rates({**rates, **ideal})
    case = f"{training.name}, {training.items} {training.unit} a process"
    yield Row(suite, f"fit, {ONE}, {case}", "float32", found[ONE], unit)
    ratio = median_interval([a / b for a, b in zip(rates[APART], ideal[IDEAL], strict=True)])
    yield Row(suite, f"fit, {APART}, {case}", "float32", found[APART], unit, found[IDEAL], IDEAL, ratio)
    for peer in ideal:
        yield Row(
            suite, f"fit, {TOGETHER}, {case}", "float32", found[TOGETHER], unit, found[peer], peer,
            found.ratio(TOGETHER, peer),
        )  # fmt: skip
    for name in (ONE, TOGETHER):
        yield Row(suite, f"time to first step, {name}, {training.name}", "float32", median(first[name]), "s")
