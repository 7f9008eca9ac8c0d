#!/usr/bin/env python
"""Kills one training again and again, and asserts that it ends with the weights of a training left alone.

    python scripts/kill_test.py --kills 50 --out runs/kill_test

A training runs without a break; then the same one is ended by SIGKILL, gone on with `--ckpt_path last`, and
ended again. Kills are aimed, one after the other, at any moment of the training, into the writing of a
checkpoint, into validation, and into the start of the process. Writing and validation are hit for sure: the
process is stopped (SIGSTOP), looked at, and killed only if it is in there. Every second life has a worker
that loads data.

After each kill the newest whole checkpoint must be at most `--checkpoint_every` steps old. At the end the
weights, the optimizer and what the model remembers must be equal to the last bit. `kills.json` says where
each kill was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.saving import newest_whole

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs" / "frame_prediction" / "quickstart_latent_ebm.yaml"
SMALL = [
    *("--data.train_clips", "128", "--data.val_clips", "64", "--data.batch_size", "8"),
    *("--trainer.check_val_every_n_epoch", "null", "--trainer.limit_val_batches", "8"),
]
AIMS = ("training", "write", "validation", "training", "start")
VARIABLE = "KILL_TEST_MOMENT"  # names the file in which a training says where it is
PATIENCE = 180  # seconds without what is waited for
LOOK = 2e-4  # seconds between two looks at a training: a checkpoint is written in hundredths
SPREAD = 0.3  # seconds, at most, that a kill comes after the step it waits for
INSIDE = 0.03  # seconds, at most, that a kill comes after the begin of a writing or validation


class Marks(Callback):
    """Says what a training is doing, "training 12" or "validation 12", by one write that nothing can tear."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT, 0o644)
        self._mark("training", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._mark("training", trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._mark("validation", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._mark("training", trainer)

    def _mark(self, what: str, trainer: Trainer) -> None:
        os.pwrite(self.file, f"{what:<10} {trainer.global_step:>10}".encode(), 0)


@dataclass
class Kill:
    """Where a kill was meant to be, and where it was."""

    number: int
    aim: str
    hit: str
    step: int | None  # optimizer steps taken; None before the first of this life
    went_on_from: int  # step of the checkpoint that the next life finds; 0: none
    seconds_of_life: float
    bytes_written: int | None  # of a checkpoint whose writing was hit
    bytes_in_all: int | None


class Life:
    """A process that trains, until it is killed or has come to the end."""

    def __init__(self, run_dir: Path, arguments: list[str]) -> None:
        self.run_dir = run_dir
        self.moment = run_dir.parent / "moment"
        self.moment.unlink(missing_ok=True)
        self.partial = run_dir / "checkpoints" / "last.partial.ckpt"
        self.partial.unlink(missing_ok=True)  # of the life before: this one's is told from it
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "scripts")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", VARIABLE: str(self.moment)}
        command = [sys.executable, "-m", "ssl_ebm.cli", "fit", *arguments, "--run_dir", str(run_dir)]
        command += ["--trainer.callbacks+=kill_test.Marks", "--trainer.enable_progress_bar", "false"]
        self.born = time.monotonic()
        self.log = open(run_dir.parent / "log.txt", "w")  # noqa: SIM115
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)

    def where(self) -> tuple[str, int | None]:
        """What it is doing, and how many steps it has taken."""
        if self.partial.exists():
            return "write", self._marked()[1]
        return self._marked()

    def _marked(self) -> tuple[str, int | None]:
        words = self.moment.read_text().split() if self.moment.exists() else []
        return (words[0], int(words[1])) if words else ("start", None)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"training ended, or hangs: see {self.log.name}")
            time.sleep(LOOK)

    def has_taken(self, step: int) -> bool:
        return (self.where()[1] or 0) >= step

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_in(self, what: str) -> None:
        """Waits until it does this, and kills it while it does."""
        while True:
            self.wait_until(lambda: self.where()[0] == what)
            time.sleep(random.random() * INSIDE)
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if self.where()[0] == what:
                self.kill()
                return
            self.process.send_signal(signal.SIGCONT)


def steps_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(content_of(checkpoint)["global_step"])


def content_of(checkpoint: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return content


def strike(life: Life, number: int, aim: str, step: int, startup: float) -> Kill:
    """Kills a training where it is aimed, after that many optimizer steps."""
    if aim == "start":
        time.sleep(random.random() * startup)
        life.kill()
    else:
        life.wait_until(lambda: life.has_taken(step))
        if aim == "training":
            time.sleep(random.random() * SPREAD)
            life.kill()
        else:
            life.kill_in(aim)
    hit, at = life.where()
    whole = life.run_dir / "checkpoints" / "last.ckpt"
    torn = (life.partial.stat().st_size, whole.stat().st_size) if hit == "write" and whole.exists() else None
    kept = steps_of(newest_whole(life.run_dir))
    seconds = round(time.monotonic() - life.born, 2)
    return Kill(number, aim, hit, at, kept, seconds, *(torn or (None, None)))


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two contents of checkpoints differ in a bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            yield from differences(one.get(name), other.get(name), f"{place}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{place}/{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield place
    elif one != other:
        yield place


def parse(words: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any setting of fit goes behind: --config FILE.yaml --data.folder DIR",
    )  # fmt: skip
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--steps", type=int, default=1000, help="of the training (default: 1000)")
    parser.add_argument("--checkpoint_every", type=int, default=5, help="steps (default: 5)")
    parser.add_argument("--validate_every", type=int, default=20, help="steps (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/kill_test"), help="folder, made anew")
    return parser.parse_known_args(words)


def main() -> None:
    options, settings = parse()
    random.seed(options.seed)
    if options.out.exists():
        shutil.rmtree(options.out)
    fit = ["--config", str(CONFIG), *SMALL] if "--config" not in settings else []
    fit += ["--trainer.max_steps", str(options.steps), "--checkpoint_every", str(options.checkpoint_every)]
    fit += ["--trainer.val_check_interval", str(options.validate_every), "--ckpt_path", "last"]
    fit += ["--trainer.accelerator", "cpu", "--trainer.deterministic", "true", *settings]

    (options.out / "whole").mkdir(parents=True)
    (options.out / "killed").mkdir()
    print("training without a break ...", flush=True)
    life = Life(options.out / "whole" / "run", fit)
    life.wait_until(lambda: life.has_taken(0) and life.where()[1] is not None)
    startup = time.monotonic() - life.born
    life.process.wait()
    whole = content_of(options.out / "whole" / "run" / "checkpoints" / "last.ckpt")
    print(f"  {time.monotonic() - life.born:.0f} s, {startup:.1f} of them until the first step", flush=True)

    kills: list[Kill] = []
    begun, run_dir = time.monotonic(), options.out / "killed" / "run"
    for number, aim in enumerate(islice(cycle(AIMS), options.kills), 1):
        kept = kills[-1].went_on_from if kills else 0
        # Two validations are left for the last aim; the steps before are shared by the lives that remain.
        room = options.steps - 2 * options.validate_every - kept
        step = kept + random.randint(1, max(1, 2 * room // (options.kills - number + 2)))
        workers = ["--data.workers", str(number % 2)]
        kill = strike(Life(run_dir, [*fit, *workers]), number, aim, step, startup)
        kills.append(kill)
        if kill.went_on_from < max(kept, (kill.step or 0) - options.checkpoint_every):
            raise SystemExit(f"lost more than {options.checkpoint_every} steps: {kill}")
        torn = "" if kill.bytes_written is None else f" ({kill.bytes_written} of {kill.bytes_in_all} bytes)"
        left = (time.monotonic() - begun) / number * (options.kills - number)
        print(
            f"kill {number} of {options.kills}: {kill.hit}{torn}, step {kill.step}; goes on from step "
            f"{kill.went_on_from}; about {left:.0f} s left",
            flush=True,
        )
    last = Life(run_dir, fit)
    if last.process.wait() != 0:
        raise SystemExit(f"the last life failed: see {last.log.name}")
    again = content_of(run_dir / "checkpoints" / "last.ckpt")
    parts = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
    wrong = [name for part in parts for name in differences(whole[part], again[part], part)]
    counts = Counter(kill.hit for kill in kills)
    report = {
        "kills": len(kills),
        "hit": counts,
        "steps": again["global_step"],
        "differences": wrong,
        "seconds": round(time.monotonic() - begun, 1),
        "seed": options.seed,
        "fit": fit,
        "versions": versions(),
        "each": [asdict(kill) for kill in kills],
    }
    (options.out / "kills.json").write_text(json.dumps(report, indent=1))
    if wrong:
        raise SystemExit(f"weights differ from those of a training left alone: {', '.join(wrong[:5])}")
    hit = ", ".join(f"{count} in {what}" for what, count in counts.items())
    print(f"{len(kills)} kills ({hit}): the same weights to the last bit, {options.out / 'kills.json'}")


if __name__ == "__main__":
    main()
