"""Trains every model of a comparison with every seed, each in a process of its own: the real ``fit``.

A training that has been done before with the same settings is not done again, and one that was interrupted
goes on where it stood.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from ssl_ebm.errors import UserError
from ssl_ebm.files import sha256_of, write_whole
from ssl_ebm.progress import Display
from ssl_ebm.report.entries import Entry, trained_settings, usable_cores
from ssl_ebm.running.launching import environment_of_one
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import last_checkpoint, newest_whole

POLL_SECONDS = 0.2
STEP_LINE = re.compile(r"^step (\d+)(?:/\d+)?.*? ([\d.]+) steps/s", re.M)
SHOWN_LINES = 15  # of a failed process
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@dataclass
class Training:
    """One model trained with one seed, in ``folder``."""

    entry: Entry
    seed: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    first_step: int = 0
    threads: int = 0
    step: int = field(init=False)

    def __post_init__(self) -> None:
        self.step = self._saved_step() if self._same_settings() else 0

    # -- what is on disk ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"{self.entry.name} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        return last_checkpoint(self.folder)

    @property
    def finished(self) -> bool:
        return self.step >= self.entry.steps

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder / "fit.log"

    def _same_settings(self) -> bool:
        """Whether the folder holds a training with the settings of today."""
        try:
            saved = trained_settings(yaml.safe_load((self.folder / "config.yaml").read_text()))
        except (OSError, yaml.YAMLError, AttributeError):
            return False
        return saved == {**self.entry.settings, "seed_everything": self.seed} and self._same_start()

    def _same_start(self) -> bool:
        """Whether it began with the weights that are at `start_from` today, if that is set."""
        start = self.entry.settings.get("start_from")
        if start is None:
            return True
        try:
            first = json.loads((self.folder / "run.json").read_text())[0]
            return bool(first["began_from"]["sha256"] == sha256_of(start))
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _saved_step(self) -> int:
        """That of the newest checkpoint that is whole; 0 where there is none."""
        try:
            newest = newest_whole(self.folder)
            return 0 if newest is None else int(read_checkpoint(newest)["global_step"])
        except UserError:
            return 0

    @property
    def record(self) -> dict[str, Any]:
        """Seconds, threads and speed of the training so far: ``training.json`` in its folder."""
        try:
            return dict(json.loads((self.folder / "training.json").read_text()))
        except (OSError, ValueError):
            return {"seconds": 0.0, "steps": 0, "threads": None, "steps_per_second": None}

    # -- the process -------------------------------------------------------------------------------------

    @property
    def command(self) -> list[str]:
        arguments = ["--config", str(self.entry.path), *self.entry.overrides]
        arguments += ["--seed_everything", str(self.seed)]
        arguments += ["--run_dir", str(self.folder)]
        if self.step:
            arguments += ["--ckpt_path", "last"]
        return [sys.executable, "-m", "ssl_ebm.cli", "fit", *arguments]

    def start(self, threads: int, gpu: int | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.step:  # settings of an earlier training, and its time, are not this one's
            (self.folder / "training.json").unlink(missing_ok=True)
        environment = {**environment_of_one(), "OMP_NUM_THREADS": str(threads), "COLUMNS": "200"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible_gpus()[gpu]
        self.started, self.first_step, self.threads = time.monotonic(), self.step, threads
        with self.log.open("ab" if self.step else "wb") as output:
            self._printed_before = output.tell()
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def _output(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._printed_before)
            return file.read().decode(errors="replace")

    def look(self) -> bool:
        """Reads how far the process is; True when it has ended. UserError where it failed."""
        assert self.process is not None
        status = self.process.poll()
        if found := STEP_LINE.findall(self._output()):
            self.step = int(found[-1][0])
        if status is None:
            return False
        if status == 0:
            self.step = self._saved_step()
        self.keep_time()
        self.process = None
        if status or not self.finished:
            raise UserError(self._failure(status))
        return True

    def keep_time(self) -> None:
        """Adds the time of this process to that of the earlier ones."""
        speeds = [float(speed) for _, speed in STEP_LINE.findall(self._output())]
        seconds = time.monotonic() - self.started
        before = self.record
        steps = before["steps"] + max(0, self.step - self.first_step)
        total = before["seconds"] + seconds
        # Between two progress lines nothing is started or saved; a short training has too few of them.
        speed = median(speeds) if len(speeds) >= 3 else before["steps_per_second"] or steps / total or None
        record = {"seconds": total, "steps": steps, "threads": self.threads, "steps_per_second": speed}
        write_whole(self.folder / "training.json", json.dumps(record, indent=1) + "\n")

    def _failure(self, status: int) -> str:
        lines = [line for line in self._output().splitlines() if line.strip()]
        if status == 2 and lines and "error: " in lines[-1]:  # a mistake of the user, in one line
            return f"training of {self.name} stopped: {lines[-1].partition('error: ')[2]}"
        tail = "\n".join(lines[-SHOWN_LINES:])
        how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        if status == 0:
            how = f"ended at step {self.step} of {self.entry.steps}"
        print(f"--- last lines of {self.log} ---\n{tail}", file=sys.stderr, flush=True)
        return f"training of {self.name} {how}: see {self.log}; the same command goes on from there"


def _die_with_parent() -> None:
    """A killed command must leave no training behind, or the next one would write beside it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def places(entries: Sequence[Entry], trainings: int) -> list[tuple[int, int | None]]:
    """Where trainings run at the same time, as (threads, GPU): one for each GPU, or for each core."""
    cores = usable_cores()
    if entries[0].uses_gpu:
        gpus = min(len(_visible_gpus()), trainings)
        return [(max(1, cores // gpus), gpu) for gpu in range(gpus)]
    count = max(1, min(cores, trainings))
    return [(max(1, cores // count), None)] * count


def train(trainings: Sequence[Training], display: Display, afterwards: float = 0.0) -> None:
    """Runs what is not finished, as many at once as there are places.

    Args:
        afterwards: seconds that the command will need when all are trained, for the time left.

    Raises:
        UserError: a training failed; the others are stopped, and go on when the command is run again.
    """
    waiting = [training for training in trainings if not training.finished]
    # The slower kind first: at the end no core is left with a long training to itself.
    waiting.sort(key=lambda training: training.entry.name != "latent_ebm")
    free = places([t.entry for t in trainings], len(waiting)) if waiting else []
    running: list[tuple[Training, tuple[int, int | None]]] = []
    total = sum(t.entry.steps for t in trainings)
    left = TimeLeft(trainings, len(free))
    try:
        while waiting or running:
            while waiting and free:
                place = free.pop()
                training = waiting.pop(0)
                training.start(*place)
                running.append((training, place))
            time.sleep(POLL_SECONDS)
            for pair in list(running):
                if pair[0].look():
                    running.remove(pair)
                    free.append(pair[1])
            remaining = left()
            display.show(
                "training",
                sum(min(t.step, t.entry.steps) for t in trainings),
                total,
                "steps",
                None if remaining is None else remaining + afterwards,
                ", ".join(f"{t.name}: {t.step}" for t, _ in running),
            )
    finally:
        for training, _ in running:
            if training.process is not None:
                training.process.kill()  # checkpoints are written whole: nothing is lost but a few steps
                training.process.wait()
                training.step = max(training.step, training._saved_step())
                training.keep_time()


class TimeLeft:
    """Seconds until all trainings have ended, from the speed of each model so far."""

    def __init__(
        self, trainings: Sequence[Training], places: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.trainings, self.places, self.now = trainings, places, now
        self.pace: dict[str, float] = {}  # seconds per step

    def __call__(self) -> float | None:
        """None before the first step has been seen."""
        for t in self.trainings:
            if t.process is not None and t.step > t.first_step:
                self.pace[t.entry.name] = (self.now() - t.started) / (t.step - t.first_step)
            elif (speed := t.record["steps_per_second"]) and t.entry.name not in self.pace:
                self.pace[t.entry.name] = 1 / speed
        if not self.pace:
            return None
        usual = sum(self.pace.values()) / len(self.pace)
        each = [max(0, t.entry.steps - t.step) * self.pace.get(t.entry.name, usual) for t in self.trainings]
        return max(sum(each) / max(1, self.places), max(each))
